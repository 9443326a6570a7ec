"""What tells a tracker of a training without ever keeping the training waiting: a thread of its own, and a bounded queue."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import final

from rarkit.errors import PluginError, RarkitError, RarkitWarning
from rarkit.registry.contract import named
from rarkit.registry.exits import told
from rarkit.trackers.base import OpenTracker, TrackedRun, Tracker

MOST_WAITING, MOST_BYTES = 4096, 2**28
"""Calls that may wait for a tracker, and the bytes of the pictures among them."""
OPENING_SECONDS = 120.0
"""After which a tracker that does not open is an error."""
CLOSING_SECONDS, HURRIED_SECONDS = 60.0, 5.0
"""How long the end of a training waits for a tracker, and how long if an error or a signal ends it: launchers kill soon after."""
Call = Callable[[OpenTracker], None]


@final
class Feed:
    """One tracker at work in a thread of its own, in which all its calls are made, the first to open and the last to close it."""

    def __init__(self, part: Tracker, run: TrackedRun) -> None:
        self._part, self._run = part, run
        self._calls: deque[tuple[Call, int]] = deque()
        self._changed = threading.Condition()
        self._opened = self._closing = self._ended = False
        self._bytes = self._lost = 0
        self._error: BaseException | None = None
        self._said: set[str] = set()
        # A daemon, so that one that hangs does not keep the process.
        self._thread = threading.Thread(target=self._work, name=f"rarkit-tracker-{part.name}", daemon=True)

    def open(self) -> None:
        """Opens the tracker.

        Raises:
            PluginError: it raises an error, or does not answer; errors of rarkit's pass as they are.
        """
        self._thread.start()
        with self._changed:
            answered = self._changed.wait_for(lambda: self._opened or self._ended, OPENING_SECONDS)
            self._closing = not self._opened
        cure = "Correct that, or leave it out of [[trackers]]."
        if not answered:
            raise PluginError(f"the {named(type(self._part))} is not open after {OPENING_SECONDS:g} seconds. {cure}")
        if not self._opened:
            if isinstance(self._error, RarkitError):
                raise self._error
            assert self._error is not None, "a thread that ends early has a reason"
            raise PluginError(
                f"the {named(type(self._part))} raised {told(self._error)} when it was opened. {cure}"
            ) from self._error

    def put(self, call: Call, size: int = 0) -> None:
        """Has the tracker called soon; ``size`` is what the call keeps in memory, in bytes. Never waits, raises nothing of its."""
        with self._changed:
            is_full = len(self._calls) >= MOST_WAITING or self._bytes + size > MOST_BYTES
            if self._ended or is_full:
                self._lost += 1
            else:
                self._calls.append((call, size))
                self._bytes += size
                self._changed.notify_all()
        if self._error is not None:
            self._say(f"raised {told(self._error)}: it is left out from now on, and the training goes on without it")
        elif is_full:
            self._say("does not keep up with the training, or hangs: what comes while too much waits for it is left out")

    def close(self, seconds: float) -> None:
        """Waits until all is told and the tracker closed, but no longer than so many seconds; says what was lost."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._ended, seconds):
                # If it ever comes back, it finds nothing left to do.
                self._lost += len(self._calls) + 1
                self._calls.clear()
        if self._error is not None:
            self._say(f"raised {told(self._error)}")
        elif not self._ended:
            self._say(f"has not ended {seconds:g} seconds after the training, and is left behind")
        if self._lost:
            self._say(f"lacks {self._lost:,} of the records of this training")

    def _say(self, what: str) -> None:
        """Warns, once of each thing."""
        if what.partition(":")[0] not in self._said:
            self._said.add(what.partition(":")[0])
            warnings.warn(f"the {named(type(self._part))} {what}.", RarkitWarning, stacklevel=4)

    def _work(self) -> None:
        try:
            tracker = self._part.open(self._run)
            with self._changed:
                self._opened = True
                self._changed.notify_all()
            try:
                while self._has_next():
                    self._next()(tracker)
            except BaseException as error:
                self._fail(error, lost=1)
            tracker.close()
        except BaseException as error:
            # A part may raise anything, sys.exit() too.
            self._fail(error)
        finally:
            with self._changed:
                self._ended = True
                self._lost += len(self._calls)
                self._calls.clear()
                self._changed.notify_all()

    def _fail(self, error: BaseException, lost: int = 0) -> None:
        with self._changed:
            self._error = self._error or error
            self._lost += lost

    def _has_next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or bool(self._calls))
            return bool(self._calls)

    def _next(self) -> Call:
        with self._changed:
            call, size = self._calls.popleft()
            self._bytes -= size
            return call
