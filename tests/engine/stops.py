"""Points at which a training is stopped: before a step, or with a checkpoint half-written. For tests, and for processes of ours."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rarkit.cache.file_stream import FileStream
from rarkit.cache.output_folder import OutputFolder
from rarkit.engine.checkpoints import Checkpoints
from rarkit.engine.mesh import joined
from rarkit.engine.trainer import Trainer
from rarkit.runtime.together import together
from tests.processes import rarkit

MOMENT = b"stopping at %.3f\n"
WHOLE = 10**6
"""A place behind all tensors of a checkpoint: its seal."""


@dataclass(frozen=True)
class Point:
    """Where a training is stopped."""

    step: int
    """Before this step; or in the first checkpoint that is written from then on."""
    place: int | None = None
    """How many portions of the checkpoint are written before; None for a step."""


def install(point: Point, stop: Callable[[], None], replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Has ``stop`` called once, at a point. ``replace(owner, name, value)`` sets an attribute of a class."""
    advance, save, write, write_file = Trainer.advance, Checkpoints.save, FileStream.write, OutputFolder.write_file
    saving: list[int] = []
    reached: list[bool] = []

    def advancing(self: Trainer, **flags: Any) -> None:
        if point.place is None and self.step >= point.step and not reached:
            reached.append(True)
            stop()
        advance(self, **flags)

    def saving_a_checkpoint(self: Checkpoints, step: int, *arguments: Any) -> None:
        if point.place is not None and step >= point.step and not reached:
            saving.append(step)
        save(self, step, *arguments)

    def writing(self: FileStream, data: Any) -> None:
        if not saving or reached or writing.count < point.place:
            writing.count += bool(saving)
            return write(self, data)
        reached.append(True)
        view = memoryview(data).cast("B")
        with self._changing():
            self._file.write(view[: len(view) // 2])
            stop()
            # Where a signal is held back, the file is written on.
            self._hash.update(view)
            self._file.write(view[len(view) // 2 :])
        self.size += len(view)

    def writing_a_file(self: OutputFolder, name: str, data: bytes) -> None:
        if saving and not reached and name.endswith(".json"):
            reached.append(True)
            with self._changing():
                stop()
        write_file(self, name, data)

    writing.count = 0  # type: ignore[attr-defined]
    replace(Trainer, "advance", advancing)
    replace(Checkpoints, "save", saving_a_checkpoint)
    replace(FileStream, "write", writing)
    replace(OutputFolder, "write_file", writing_a_file)


def full() -> None:
    """The disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True)
class Stop:
    """How one process of a run is stopped, and where."""

    how: str
    """The name of a signal, or ``"full"``: the disk is full."""
    rank: int
    point: Point
    delay: float = 0.0
    """Seconds between the point and the signal."""


def stopped_at(stops: Sequence[Stop], *arguments: object) -> None:
    """The command ``rarkit``, stopped. Says on stderr when."""
    for stop in stops:
        if int(os.environ.get("RANK", "0")) == stop.rank:
            install(stop.point, partial(_stop, stop))
    rarkit(*arguments)


def _stop(stop: Stop) -> None:
    if stop.delay:
        timer = threading.Timer(stop.delay, _signal, (stop.how,))
        timer.daemon = True
        timer.start()
    elif stop.how == "full":
        os.write(2, MOMENT % time.time())
        full()
    else:
        _signal(stop.how)


def _signal(name: str) -> None:
    os.write(2, MOMENT % time.time())
    os.kill(os.getpid(), getattr(signal, name))


def join_again_and_again() -> None:
    """Processes that train one thing after another in one run; prints the sums that they share."""
    with together() as ranks:
        for _ in range(3):
            with joined(ranks, "cpu"):
                number = torch.ones(1)
                torch.distributed.all_reduce(number)
                if ranks.first:
                    print(int(number))
