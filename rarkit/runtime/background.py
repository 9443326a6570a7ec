"""Work in a thread beside the one that hands it out, a bounded number of items behind it."""

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
    """Works on items one after the other, in the order in which they came, while its owner goes on.

    A context: left without an error, it waits until everything is done; left with one (Ctrl-C, say), it finishes the item in hand
    and drops those that wait. What goes wrong in the thread is raised by the owner's next call.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        *,
        waiting: int,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Nothing starts before the context is entered.

        Args:
            work: called in the thread, with one item at a time.
            waiting: how many items may wait at most, at least 1: ``put`` blocks until there is room. One more is in hand.
            around: a context that the thread enters for all its life, for settings that belong to a thread.
        """
        assert waiting >= 1, waiting
        self._work, self._most, self._around = work, waiting, around
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = self._busy = False
        self._error: BaseException | None = None
        # A daemon, so that a second Ctrl-C ends the process without waiting for the item in hand.
        self._thread = threading.Thread(target=self._run, name="rarkit-background", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            if kind is not None:
                self._items.clear()
            self._changed.notify_all()
        self._thread.join()
        if kind is None:
            self.check()

    def put(self, item: Item) -> None:
        """Hands over an item; waits for room."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or len(self._items) < self._most)
            self.check()
            self._items.append(item)
            self._changed.notify_all()

    def settle(self) -> None:
        """Waits until everything that was handed over is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not (self._items or self._busy))
        self.check()

    def check(self) -> None:
        """Raises what went wrong in the thread, if anything did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._around():
                while self._has_next():
                    # Not held by a name here, so that a finished item's memory is free while the next is waited for.
                    self._work(self._next())
        except BaseException as error:
            with self._changed:
                self._error = error
                self._items.clear()
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
