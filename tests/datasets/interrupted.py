"""A process that is interrupted, with its workers, as by Ctrl-C in a terminal; for ``tests.processes``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rarkit.datasets.decoding import EncodedImage
from rarkit.datasets.workers import Workers


def interrupted(folder: Path, when: str) -> None:
    """Sends SIGINT to the process group when the workers are ``starting``, or when the first of them has ``started``."""
    # A group of its own, so that the tests survive; their shell may have them ignore SIGINT.
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in Workers(2).map(partial(_work, folder), _batches(folder, when)):
            continue
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)


def _batches(folder: Path, when: str) -> Iterator[list[EncodedImage]]:
    for number in range(3):
        yield [EncodedImage(str(number), number)]
    while when == "started" and not (folder / "started").exists():
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)
    time.sleep(60)


def _work(folder: Path, batch: list[EncodedImage]) -> int:
    (folder / "started").touch()
    return len(batch)
