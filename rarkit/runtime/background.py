"""A background thread with a bounded queue of work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Generic, Self, TypeVar, final

Item = TypeVar("Item")


@final
class Background(Generic[Item]):
    """Processes items one at a time, first in, first out, in its own thread.

    A context manager. A normal exit waits for all items; an exit by exception (Ctrl-C, say) finishes the current item and drops
    the queued ones. An exception in the thread is raised by the owner's next call.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        *,
        waiting: int,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """The thread starts when the context is entered.

        Args:
            work: called in the thread, with one item at a time.
            waiting: the length of the queue, at least 1, not counting the item being processed; ``put`` blocks while it is full.
            around: a context that the thread holds for its lifetime, for thread-local settings.
        """
        assert waiting >= 1, waiting
        self._work, self._most, self._around = work, waiting, around
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = self._busy = self._ended = False
        self._error: BaseException | None = None
        # A daemon, so that a second Ctrl-C ends the process without waiting for the current item.
        self._thread = threading.Thread(target=self._run, name="rarkit-background", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._end(drop=kind is not None)
        except BaseException:
            # Ctrl-C during a normal exit is an exit by exception too.
            self._end(drop=True)
            raise
        if kind is None:
            self.check()

    def _end(self, *, drop: bool) -> None:
        with self._changed:
            self._closed = True
            if drop:
                self._items.clear()
            self._changed.notify_all()
            # Not by joining the thread: once interrupted, that takes the thread for ended (Python 3.11).
            self._changed.wait_for(lambda: self._ended)

    def put(self, item: Item) -> None:
        """Queues an item; blocks while the queue is full."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or len(self._items) < self._most)
            self.check()
            self._items.append(item)
            self._changed.notify_all()

    def settle(self) -> None:
        """Waits until every queued item is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not (self._items or self._busy))
        self.check()

    def check(self) -> None:
        """Raises the thread's exception, if there was one."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._around():
                while self._has_next():
                    # Bound to no name here, so that a finished item's memory is freed while the thread waits for the next.
                    self._work(self._next())
        except BaseException as error:
            with self._changed:
                self._error = error
                self._items.clear()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_next(self) -> bool:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or bool(self._items))
            self._busy = bool(self._items)
            return self._busy

    def _next(self) -> Item:
        with self._changed:
            item = self._items.popleft()
            self._changed.notify_all()
            return item
