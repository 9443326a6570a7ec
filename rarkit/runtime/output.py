"""stdout is for the results of a command. What plugins, libraries and processes started here print there goes to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, final

from rarkit.errors import StoreError

_results: TextIO | None = None


def results() -> TextIO:
    """Where results are printed: what was stdout before ``stdout_for_results``, or else stdout."""
    return _results or sys.stdout


def report_errors_of_stdout() -> None:
    """Makes errors of writing to stdout, such as a full disk, a ``StoreError``."""
    if isinstance(sys.stdout, io.TextIOWrapper) and _is_descriptor(sys.stdout, 1):
        sys.stdout.flush()
        sys.stdout = _stdout(1, sys.stdout)


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
    own = _stdout(os.dup(1), others)
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


def _stdout(descriptor: int, like: TextIO) -> io.TextIOWrapper:
    raw = _Stdout(descriptor, "w", closefd=descriptor != 1)
    # In lines, so that they come out in order and none is lost if the process dies.
    return io.TextIOWrapper(io.BufferedWriter(raw), like.encoding, like.errors, line_buffering=True)


@final
class _Stdout(io.FileIO):
    """A descriptor to write to, whose errors are messages."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            # What could not be written is given up, or closing the stream would fail again.
            os.dup2(null := os.open(os.devnull, os.O_WRONLY), self.fileno())
            os.close(null)
            raise StoreError(f"cannot write the result to stdout: {error.strerror}. Write it to another place.") from error


@contextmanager
def _object_replaced() -> Iterator[None]:
    global _results
    _results = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results = None
