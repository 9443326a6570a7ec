"""The command line. Each command parses its arguments, calls one function and prints the result."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """The ``rarkit`` command. Exits with 0 on success, 2 for an invalid request, 1 for any other failure.

    After SIGINT (Ctrl-C) and SIGTERM it exits with 130 and 143, also while the commands are still being imported.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Who ignores a signal, or handles it, goes on doing so.
    usual = [number for number, handler in before.items() if handler in (signal.default_int_handler, signal.SIG_DFL)]
    for number in usual:
        signal.signal(number, _end_at_once)
    try:
        from rarkit.cli.app import run_commands

        run_commands()
    finally:
        for number in usual:
            signal.signal(number, before[number])


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # There is nothing to clean up yet, and an exception would come out of whatever is being imported.
    sys.stderr.write(f"stopped by {signal.Signals(number).name}. Nothing was begun.\n")
    sys.stderr.flush()
    os._exit(128 + number)
