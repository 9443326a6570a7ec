"""Runs that get signals during training, for ``tests.processes``."""

from __future__ import annotations

import os
import signal
from typing import Any

from rarkit import load_recipe, run
from rarkit.cache.output import StageOutput
from rarkit.engine.trainer import Trainer
from tests.processes import rarkit


def stopped_in_training(name: str, step: int, again: bool, *arguments: object) -> None:
    """The command ``rarkit``; the first rank gets a signal during a training step, and once more while it writes a checkpoint."""
    _signal_at(name, step, again)
    rarkit(*arguments)


def stopped_in_python(name: str, step: int, recipe: str, store: str, runs: str) -> None:
    """``rarkit.run``; prints which exception it raises, and whether the handlers are those from before."""
    _signal_at(name, step, False)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        run(load_recipe(recipe), store, device="cpu", runs=runs, quiet=True)
    except BaseException as error:
        print(type(error).__name__, *getattr(error, "__notes__", ()))
    print([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before)


def stopped_in(stage: str, name: str, *arguments: object) -> None:
    """The command ``rarkit``, which gets a signal at the first thing that a stage writes."""
    plain = StageOutput.create

    def create(self: StageOutput, *args: Any, **kwargs: Any) -> None:
        if self.stage == stage:
            os.kill(os.getpid(), getattr(signal, name))
        plain(self, *args, **kwargs)

    StageOutput.create = create  # type: ignore[method-assign]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rarkit(*arguments)


def _signal_at(name: str, step: int, again: bool) -> None:
    # A shell that runs the tests in the background ignores SIGINT, and so does what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    advance, write_file = Trainer.advance, StageOutput.write_file

    def advancing(self: Trainer, **flags: Any) -> None:
        advance(self, **flags)
        # The step after the signal is the one in which all processes learn of it.
        if self.step == step:
            os.kill(os.getpid(), getattr(signal, name))

    def writing(self: StageOutput, file: str, data: bytes) -> None:
        if file == f"checkpoint-{step + 1}.json":
            os.kill(os.getpid(), getattr(signal, name))
        write_file(self, file, data)

    Trainer.advance = advancing  # type: ignore[method-assign]
    if again:
        StageOutput.write_file = writing  # type: ignore[method-assign]
