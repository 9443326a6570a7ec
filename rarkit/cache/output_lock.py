"""The lock of a stage output: who is writing it, waiting for that process, and writing it oneself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, final

from rarkit.cache.hold import SharedHold
from rarkit.cache.holder import Holder
from rarkit.cache.lock import Times, lock
from rarkit.cache.lock_file import LockFile, NoLockError
from rarkit.cache.output_folder import LOCK, OutputFolder
from rarkit.runtime.clock import seconds
from rarkit.runtime.progress import Reporter


@final
@dataclass(frozen=True)
class Writing:
    """What a process that writes an output knows of its lock."""

    token: str
    """Names this lock, for the other ranks."""
    waited_for: Holder | None
    """The process that held it before and was waited for; None if there was none."""


@final
class OutputLock:
    """The folder refuses to be written where the permission that is given here has ended."""

    times: ClassVar[Times] = Times()

    def __init__(self, folder: OutputFolder, name: str) -> None:
        """``name``: the output, for messages."""
        self._folder = folder
        self._name = name
        self._path = f"{folder.path}/{LOCK}"

    def writer(self) -> Holder | None:
        """The other process that is writing the output at the moment, as far as lock and clock tell; None if there is none.

        A heartbeat far in the future is no sign of life.
        """
        holder = self.holder()
        return holder if holder is not None and self._is_alive(holder) else None

    def reader_of(self, name: str) -> Holder | None:
        """The other process that is writing the output, and reads another one for it: ``name``, as ``stage/fingerprint``.

        One whose heartbeat is in the future is watched until it is renewed, or would be free.
        """
        holder = self.holder()
        if holder is None or name not in holder.reads:
            return None
        if self._is_alive(holder):
            return holder
        return holder if holder.is_ahead and self._is_renewed(holder) else None

    def _is_alive(self, holder: Holder) -> bool:
        return holder.is_newer or (holder.age < self.times.free and not holder.is_ahead)

    def _is_renewed(self, holder: Holder) -> bool:
        began = seconds()
        while seconds() - began <= self.times.free:
            time.sleep(self.times.poll)
            if (now := self.holder()) != holder:
                return now is not None
        return False

    def holder(self) -> Holder | None:
        """The other process that holds the lock and is not known to be gone; None if there is none."""
        try:
            with self._folder.reading():
                contents = LockFile(self._folder.filesystem, self._path, self.times.patience).read()
        except NoLockError:
            return None
        holder = None if contents is None else Holder.of(contents)
        own = None if self._folder.hold is None else self._folder.hold.token
        return None if holder is None or holder.token == own or holder.is_gone() else holder

    @contextmanager
    def held(
        self,
        reporter: Reporter,
        *,
        reads: Sequence[str] = (),
        wait: bool = False,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[Writing]:
        """Holds the lock while the body runs.

        ``reads`` are the outputs that the body reads, as ``stage/fingerprint``. The other arguments and the errors are those of
        ``StageOutput.writing``.
        """
        folder = self._folder
        held = lock(
            folder.filesystem,
            self._path,
            self._name,
            times=self.times,
            reporter=reporter,
            reads=reads,
            wait=wait,
            while_waiting=while_waiting,
        )
        with held as (hold, other):
            # Whoever held the lock before may have gone on with the output, or finished it.
            folder.refresh()
            folder.hold = hold
            try:
                yield Writing(hold.token, other)
            finally:
                folder.hold = None
                # The lock file is among those listed, and goes now.
                folder.forget_sizes()

    def share(self, token: str) -> None:
        """Has this process write as long as the lock is that of another rank."""
        self._folder.hold = SharedHold(self._folder.filesystem, self._path, self._name, token)
