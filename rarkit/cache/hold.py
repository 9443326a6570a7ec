"""The permission to write a stage output, checked before and during each write."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, final

from fsspec import AbstractFileSystem

from rarkit.cache.holder import Holder
from rarkit.cache.lock_file import LockFile
from rarkit.errors import LockLostError

Done = TypeVar("Done")
_PATIENCE_SECONDS = 10.0


class Hold(ABC):
    """The permission to write an output."""

    token: str
    """The random number of the lock."""

    @abstractmethod
    def check(self) -> None:
        """Raises LockLostError unless this process may write now."""

    @abstractmethod
    def confirm(self) -> None:
        """Like ``check``, but asks the store, whatever the clock says."""

    @abstractmethod
    def seconds_left(self) -> float:
        """For how long this process may write without another renewal."""


@final
class SharedHold(Hold):
    """The permission of a rank whose first rank holds the lock: valid as long as the lock file is that of this token."""

    def __init__(self, filesystem: AbstractFileSystem, path: str, what: str, token: str) -> None:
        self.token = token
        self._file = LockFile(filesystem, path, _PATIENCE_SECONDS)
        self._what = what

    def check(self) -> None:
        contents = self._file.read()
        holder = None if contents is None else Holder.of(contents)
        if contents is None or (holder is not None and holder.token != self.token):
            raise LockLostError(f"{self._what} is no longer written by this run: its lock is gone. Run again to go on.")

    def confirm(self) -> None:
        self.check()

    def seconds_left(self) -> float:
        return float("inf")


async def while_held(hold: Hold | None, work: Callable[[], Coroutine[Any, Any, Done]]) -> Done:
    """Does work that writes, and breaks it off when the lock expires without a renewal. Call ``check`` first.

    It does not begin if the lock has expired since, as it may while the process is stopped, or its machine asleep.

    Raises:
        LockLostError: it was broken off.
    """
    if hold is None:
        return await work()
    if hold.seconds_left() <= 0:
        hold.check()
    task = asyncio.ensure_future(work())
    try:
        while True:
            left = hold.seconds_left()
            done, _ = await asyncio.wait({task}, timeout=None if left == float("inf") else max(0.0, left))
            if done:
                return task.result()
            hold.check()
    finally:
        task.cancel()
