"""Runs that kill themselves with SIGKILL, for ``tests.processes``."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rarkit import load_recipe, run
from rarkit.cache.file_stream import FileStream
from rarkit.cache.output import StageOutput


def killed_at_a_write(recipe: str, store: str, runs: str, stage: str, at: int) -> None:
    """Runs a recipe and kills itself at the n-th write of a stage: before it or, if that is a file, with half of it written."""
    writes = 0

    def killing(name: str) -> None:
        plain = getattr(StageOutput, name)

        def wrapped(self: StageOutput, *args: Any, **kwargs: Any) -> Any:
            nonlocal writes
            if self.stage == stage:
                writes += 1
                if writes == at:
                    if name == "write_file":
                        plain(self, args[0], args[1][: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return plain(self, *args, **kwargs)

        setattr(StageOutput, name, wrapped)

    plain_stream = StageOutput.writing_file

    @contextmanager
    def streaming(self: StageOutput, name: str) -> Iterator[FileStream]:
        nonlocal writes
        writes += self.stage == stage
        with plain_stream(self, name) as stream:
            yield stream
            if self.stage == stage and writes == at:
                # All of it is written, and none of it is there yet.
                os.kill(os.getpid(), signal.SIGKILL)

    for name in ("write_block", "write_file", "finish"):
        killing(name)
    StageOutput.writing_file = streaming  # type: ignore[method-assign]
    run(load_recipe(recipe), store, device="cpu", runs=runs, quiet=True)
    raise AssertionError(f"stage {stage} made only {writes} writes")


def killed_in_a_chunk(recipe: str, store: str, runs: str) -> None:
    """Tokenizes and kills itself in the middle of the second chunk: its tokens are written, its labels are not.

    The process leads a session, by which its worker processes can be found.
    """
    os.setsid()
    plain = StageOutput.write_block

    def killing(self: StageOutput, block: int, **rows: Any) -> None:
        if block == 1:
            name, tokens = next(iter(rows.items()))
            plain(self, block, **{name: tokens})
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, block, **rows)

    StageOutput.write_block = killing  # type: ignore[method-assign]
    run(load_recipe(recipe), store, until="tokenize", device="cpu", runs=runs, quiet=True)
