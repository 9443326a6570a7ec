"""SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP: held back during work that ends in good order. The exit code is 128 + number."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, Self, final

STOPPING = (signal.SIGINT, signal.SIGTERM, *(getattr(signal, name) for name in ("SIGUSR1", "SIGHUP") if hasattr(signal, name)))
"""SIGUSR1 is what Slurm is usually asked to send some time before the end (``--signal=USR1@300``), SIGHUP what a
terminal sends that is closed. They count as SIGTERM."""
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables that torchrun sets."""
KEPT = "What is finished is kept: the same command goes on from there."
"""Where the work stands after a signal, if nothing more is known."""


@final
class Stopped(SystemExit):
    """A signal ends this process. ``code`` is 128 + its number; notes (``add_note``) say where the work stands."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)

    def __str__(self) -> str:
        return " ".join([f"stopped by {self.signal.name}.", *getattr(self, "__notes__", ())])


def raise_stopped(number: int, frame: FrameType | None) -> None:
    """A signal handler that raises Stopped; under torchrun, which repeats signals, later ones are ignored."""
    if launched():
        handle(signal.SIG_IGN)
    raise Stopped(number)


def launched() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in LAUNCHED)


def world_size() -> int:
    """The number of processes that torchrun started, as its environment says; 1 if it did not start this one."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def local_world_size() -> int:
    """The number of them on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if launched() else 1


def handle(handler: Callable[[int, FrameType | None], Any] | signal.Handlers, *numbers: signal.Signals) -> Callable[[], None]:
    """Sets the handler of these signals (those of ``STOPPING`` unless given), and returns a function that restores those before.

    Signals that this process ignores stay ignored (a shell starts what runs in its background without SIGINT), and outside the
    main thread, where Python forbids it, nothing is set.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    # None is a handler that was not set from Python, which could not be restored.
    before = {number: signal.getsignal(number) for number in numbers or STOPPING}
    before = {number: previous for number, previous in before.items() if previous not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)

    def restore() -> None:
        for number, previous in before.items():
            signal.signal(number, previous)

    return restore


@contextmanager
def stopping() -> Iterator[None]:
    """Raises Stopped in the main thread when a signal to stop arrives, instead of KeyboardInterrupt and of sudden death."""
    restore = handle(raise_stopped)
    try:
        yield
    finally:
        restore()


@contextmanager
def raised_by_handlers() -> Iterator[list[BaseException]]:
    """Lists what the handlers of ``STOPPING`` raise in it, to tell a user's Ctrl-C from exceptions of the code inside.

    That code may raise KeyboardInterrupt or SystemExit itself, swallow what a handler raised, or turn it into another exception.
    """
    raised: list[BaseException] = []

    def call(before: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except BaseException as error:
            raised.append(error)
            raise

    ours = {number: partial(call, before) for number in STOPPING if callable(before := signal.getsignal(number))}
    restores = {number: handle(handler, number) for number, handler in ours.items()}
    try:
        yield raised
    finally:
        for number, restore in restores.items():
            # What was set since stays: to ignore further signals, say.
            if signal.getsignal(number) is ours[number]:
                restore()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Puts the handlers of ``STOPPING`` back at its end, if the code inside changes them."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def keeping_what_is_finished() -> Iterator[None]:
    """Around work that can go on from what it has written: says so where a signal ends it, unless it says more itself."""
    try:
        yield
    except Stopped as stop:
        if not getattr(stop, "__notes__", ()):
            stop.add_note(KEPT)
        raise


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started inside never see SIGINT.

    Ctrl-C sends it to all processes of a terminal. The one that started the others ends them, and speaks for all.
    """
    if not hasattr(signal, "pthread_sigmask"):
        # Windows: the process has to ignore it itself once it runs.
        yield
        return
    # Started before, because at its own start it unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@final
class HeldSignals:
    """Holds the signals to stop back, so that the work inside can end in good order. A context manager.

    The work looks at ``arrived`` from time to time, finishes what must not be lost, and calls ``deliver``. A second SIGINT is not
    held back; under torchrun it is, because there each rank gets one from the terminal and one from torchrun. Outside the main
    thread, nothing is held.
    """

    def __init__(self) -> None:
        self.arrived: signal.Signals | None = None
        self._restore: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._restore = handle(self._hold)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        if kind is None and self.arrived is not None:
            self.deliver("")

    def deliver(self, note: str) -> None:
        """Hands the signal to the handler before, and adds ``note`` to the exception that it raises.

        Raises:
            KeyboardInterrupt: for SIGINT, unless the program handles it otherwise.
            Stopped: for SIGTERM, SIGUSR1 and SIGHUP, unless the program handles it otherwise.
        """
        number, self.arrived = self.arrived, None
        assert number is not None, "no signal has arrived"
        self._restore()
        try:
            _hand_over(number, None)
        except BaseException as error:
            if note:
                error.add_note(note)
            raise

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.arrived is not None and number == signal.SIGINT and not launched():
            self._restore()
            _hand_over(signal.SIGINT, frame)
        self.arrived = self.arrived or signal.Signals(number)


def _hand_over(number: signal.Signals, frame: FrameType | None) -> None:
    """Calls the current handler. Instead of the default action, death without unwinding, Stopped is raised."""
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, frame)
    else:
        raise_stopped(number, frame)
