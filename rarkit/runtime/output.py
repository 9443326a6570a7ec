"""stdout is for the results of a command. What plugins, libraries and processes started here print there goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

_results: TextIO | None = None


def results() -> TextIO:
    """Where results are printed: what was stdout before ``stdout_for_results``, or else stdout."""
    return _results or sys.stdout


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Inside, ``results`` is stdout, and what is printed otherwise, from Python or not, comes out on stderr."""
    # None is a stream that was closed before Python began.
    if _results is not None or sys.stdout is None or sys.stderr is None:
        yield
        return
    with _descriptor_turned() if _is_descriptor(sys.stdout, 1) and _is_descriptor(sys.stderr, 2) else _object_replaced():
        yield


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        os.fstat(number)
        return os.name == "posix" and stream.fileno() == number
    except (AttributeError, OSError, ValueError):  # closed, or no file at all
        return False


@contextmanager
def _descriptor_turned() -> Iterator[None]:
    global _results
    others = sys.stdout
    others.flush()
    kept = os.dup(1)
    # In lines, so that they come out in order and none is lost if the process dies.
    own = open(os.dup(1), "w", buffering=1, encoding=others.encoding, errors=others.errors)  # noqa: SIM115
    try:
        os.dup2(2, 1)
        _results = own
        yield
    finally:
        try:
            others.flush()
        finally:
            _results = None
            os.dup2(kept, 1)
            os.close(kept)
            # Raises if whoever read it has gone.
            own.close()


@contextmanager
def _object_replaced() -> Iterator[None]:
    global _results
    _results = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results = None
