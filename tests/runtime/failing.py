"""The command ``rarkit`` with a rank that fails, for ``tests.processes``."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from rarkit.cache.output import StageOutput
from rarkit.errors import StoreError
from tests.processes import rarkit


def failing_in(stage: str, how: str, rank: int, at: int, *arguments: object) -> None:
    """Runs rarkit; before its write number ``at`` (from 1) of a block of the stage, the rank gets the signal ``how``."""
    plain, writes = StageOutput.write_block, 0

    def write_block(self: StageOutput, block: int, **rows: Any) -> None:
        nonlocal writes
        if self.stage == stage and int(os.environ.get("RANK", "0")) == rank:
            writes += 1
            if writes == at:
                os.kill(os.getpid(), getattr(signal, how))
        plain(self, block, **rows)

    StageOutput.write_block = write_block  # type: ignore[method-assign]
    rarkit(*arguments)


def disagreeing(version: str, *arguments: object) -> None:
    """Runs rarkit; all ranks but the first have another version of torch."""
    from rarkit.pipeline import agreement, execution

    if os.environ["RANK"] != "0":
        agreement.versions = lambda: {**execution.versions(), "torch": version}
    rarkit(*arguments)


def failing_at_a_chunk(how: str, rank: int, at: int, *arguments: object) -> None:
    """Runs rarkit; when the rank writes chunk ``at`` of the samples, it gets the signal ``how``, or finds the disk ``full``."""
    plain = StageOutput.write_block

    def write_block(self: StageOutput, block: int, **rows: Any) -> None:
        if self.stage == "sample" and (int(os.environ.get("RANK", "0")), block) == (rank, at):
            while rank and set(self.missing_blocks(list(rows))) > {at}:
                # The first rank is stopped once it hears of this. However slow it is, it has drawn its blocks by then.
                time.sleep(0.02)
                self._folder.forget_sizes()
            if how == "full":
                raise StoreError("the disk is full")
            name, values = next(iter(rows.items()))
            plain(self, block, **{name: values})
            os.kill(os.getpid(), getattr(signal, how))
        plain(self, block, **rows)

    StageOutput.write_block = write_block  # type: ignore[method-assign]
    # A shell that runs the tests in the background ignores SIGINT, and so does what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rarkit(*arguments)
