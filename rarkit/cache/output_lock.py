"""The lock of a stage output: who is writing it, waiting for that process, and writing it oneself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, final

from rarkit.cache.hold import SharedHold
from rarkit.cache.holder import Holder
from rarkit.cache.lock import Times, lock
from rarkit.cache.lock_file import LockFile
from rarkit.cache.output_folder import LOCK, OutputFolder
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
        """The other process that is writing the output at the moment, as far as the lock tells; None if there is none."""
        with self._folder.reading():
            contents = LockFile(self._folder.filesystem, self._path, self.times.patience).read()
        holder = None if contents is None else Holder.of(contents)
        own = None if self._folder.hold is None else self._folder.hold.token
        if holder is None or holder.token == own or holder.is_gone():
            return None
        return holder if holder.is_newer or holder.age < self.times.free else None

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
