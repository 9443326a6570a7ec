"""One writer per stage output: a lock file that its holder renews, and what a process does while another one holds it.

The holder stops writing before any other process may take over: it counts from the moment at which it began its last successful
renewal, and others count from the moment at which they first saw it. Nobody compares the clocks of two machines.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import final

from fsspec import AbstractFileSystem

from rarkit.cache.hold import Hold
from rarkit.cache.holder import Holder
from rarkit.cache.lock_file import LockFile
from rarkit.errors import LockedError, LockLostError, RarkitError, StoreError
from rarkit.runtime.clock import seconds
from rarkit.runtime.progress import Reporter


@final
@dataclass(frozen=True)
class Times:
    """Seconds. A lock is renewed several times within ``hold``, which is well below ``free``."""

    poll: float = 1.0
    """How often a waiting process looks."""
    renew: float = 10.0
    """How often the holder renews its lock."""
    patience: float = 10.0
    """After how long a request that concerns the lock is given up, where the file system allows it."""
    hold: float = 45.0
    """After how long without a renewal the holder stops writing."""
    free: float = 60.0
    """After how long without a renewal another process may take over."""


@final
class Lock(Hold):
    """The lock of one output, as one process sees it. Use it once: ``acquire``, then ``release``."""

    def __init__(
        self, filesystem: AbstractFileSystem, path: str, what: str, times: Times, reporter: Reporter, reads: Sequence[str] = ()
    ) -> None:
        """``path``: the lock file; ``what``: what it locks, for messages; ``reads``: see ``Holder``."""
        self.token = uuid.uuid4().hex
        self._file = LockFile(filesystem, path, times.patience)
        self._holder = Holder.this_process(self.token, reads)
        self._what, self._times, self._reporter = what, times, reporter
        self._renewed = 0.0
        self._lost: str | None = None
        self._trouble: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="rarkit-lock", daemon=True)

    # Taking it

    def acquire(self, *, wait: bool, while_waiting: Callable[[], None]) -> Holder | None:
        """Takes the lock, and renews it from a thread until ``release``.

        Args:
            wait: wait while another process holds it, and say for whom.
            while_waiting: called at each look; what it raises ends the wait.

        Returns:
            The last process that was waited for; None if there was none.

        Raises:
            LockedError: another process holds it, and ``wait`` is false; or a newer rarkit does.
            StoreError: the lock cannot be written.
        """
        try:
            other = self._acquire(wait, while_waiting)
        except RarkitError:
            raise
        except Exception as error:
            # Filesystems have exceptions of their own (botocore's are no OSErrors).
            raise StoreError(
                f"{self._what} cannot be locked at {self._file.path}: {_told(error)}. Check the store's address and permissions."
            ) from error
        self._thread.start()
        return other

    def _acquire(self, wait: bool, while_waiting: Callable[[], None]) -> Holder | None:
        seen: bytes | None = None
        since, changes = 0.0, 0
        other: Holder | None = None
        with ExitStack() as display:
            while True:
                began = seconds()
                self._file.check_no_link()
                current = self._file.read()
                looked = seconds()
                if current is None:
                    if self._file.create(self._fresh()) and self._took(began):
                        return other
                    self._pause(while_waiting)
                    continue
                if current != seen:
                    seen, since, changes = current, looked, changes + 1
                holder = Holder.of(current)
                if self._is_free(holder, began - since):
                    began = seconds()
                    if self._file.exchange(current, self._fresh(), self._times.free) and self._took(began):
                        return other
                elif self._gives_up(holder, wait, is_renewed=changes > 1):
                    raise LockedError(self._refusal(holder))
                elif holder is not None and (other is None or holder.token != other.token):
                    other = holder
                    display.close()
                    display.enter_context(self._reporter.waiting(f"{self._what}: waiting for {holder}, which is writing it"))
                self._pause(while_waiting)

    def _fresh(self) -> bytes:
        return self._holder.contents()

    def _took(self, began: float) -> bool:
        """Counts the lock as taken, unless that took so long that another process may have taken it since."""
        if seconds() - began >= self._times.hold:
            return False
        self._renewed = began
        return True

    def _pause(self, while_waiting: Callable[[], None]) -> None:
        while_waiting()
        time.sleep(self._times.poll)

    def _is_free(self, holder: Holder | None, unchanged: float) -> bool:
        if holder is None:
            return unchanged > self._times.free
        return not holder.is_newer and (holder.is_gone() or unchanged > self._times.free)

    def _gives_up(self, holder: Holder | None, wait: bool, is_renewed: bool) -> bool:
        if holder is not None and holder.is_newer:
            return True
        # One that may have been left behind, or cannot be read, is watched for as long as it takes to know.
        return not wait and (is_renewed or not (holder is None or holder.is_silent or holder.is_ahead))

    def _refusal(self, holder: Holder | None) -> str:
        if holder is None:
            return f"{self._what} is locked by {self._file.path}, which cannot be read, but changes. Wait for who writes it."
        if holder.is_newer:
            return (
                f"{self._what} is locked by a newer rarkit ({self._file.path} has format {holder.format}). Wait for it; if nothing "
                "is writing there any more, delete that file."
            )
        silent = f", but gave no sign of life for {holder.age:,.0f} s" if holder.age > 2 * self._times.renew else ""
        return (
            f"{self._what} is being written by {holder}{silent}. Wait for it (rarkit run does, without --no-wait); if it is gone, "
            f"its lock expires {self._times.free:.0f} s after its last sign of life."
        )

    # Holding it

    def seconds_left(self) -> float:
        return 0.0 if self._lost is not None else self._renewed + self._times.hold - seconds()

    def check(self) -> None:
        if self.seconds_left() > 0:
            return
        if self._lost is None:
            # For good: whoever was refused once does not go on as if nothing had happened.
            trouble = f" ({self._trouble})" if self._trouble else ""
            self._lost = f"this process could not renew its lock for {self._times.hold:.0f} s{trouble}, so another may take over"
        raise LockLostError(
            f"{self._what} is no longer written by this run: {self._lost}. What was written is kept: run again to go on."
        )

    def confirm(self) -> None:
        self.check()
        contents = self._file.read()
        if contents is None or not self._is_own(contents):
            self._lose(contents)
        self.check()

    def _is_own(self, contents: bytes) -> bool:
        holder = Holder.of(contents)
        # What cannot be read was not written by another process, which writes only after all of ``Times.free``.
        return holder is None or holder.token == self.token

    def _lose(self, contents: bytes | None) -> None:
        holder = None if contents is None else Holder.of(contents)
        self._lost = "its lock was removed" if holder is None else f"{holder} has taken over"

    def _keep_renewing(self) -> None:
        while self._lost is None and not self._stop.wait(self._times.renew if self._trouble is None else self._times.renew / 4):
            try:
                self._renew()
            except Exception as error:
                # Filesystems have exceptions of their own. It is tried again, however often it fails.
                if self._trouble is None:
                    self._trouble = _told(error)
                    self._reporter.say(
                        f"{self._what}: the lock cannot be renewed ({self._trouble}). Trying again; nothing is written after "
                        f"{self._times.hold:.0f} s without success."
                    )
            else:
                self._trouble = None

    def _renew(self) -> None:
        began = seconds()
        contents = self._file.read()
        if contents is None or not self._is_own(contents):
            self._lose(contents)
            return
        if self.seconds_left() > 0:
            self._file.write(self._fresh())
            if seconds() - self._renewed >= self._times.free:
                # It took so long that this may have overwritten another's lock: neither goes on.
                self._lost = "renewing its lock took too long"
            if self.seconds_left() <= 0:
                return
        elif not self._file.exchange(contents, self._fresh(), self._times.free):
            # Expired, and not taken over: this process may do so like any other, but somebody else is about to.
            return
        if self._lost is None:
            self._renewed = began

    def release(self) -> None:
        """Removes the lock file if it is still this process's."""
        self._stop.set()
        self._thread.join()
        if self.seconds_left() <= 0:
            return
        try:
            contents = self._file.read()
            if contents is not None and self._is_own(contents):
                self._file.remove()
        except Exception as error:
            # The work is done, and the lock expires by itself.
            self._reporter.say(f"{self._what}: the lock {self._file.path} cannot be removed ({_told(error)}). It expires.")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextmanager
def lock(
    filesystem: AbstractFileSystem,
    path: str,
    what: str,
    *,
    times: Times,
    reporter: Reporter,
    reads: Sequence[str] = (),
    wait: bool = False,
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Lock, Holder | None]]:
    """Holds a lock file while the body runs; yields the lock, and who was waited for. See ``Lock``."""
    held = Lock(filesystem, path, what, times, reporter, reads)
    other = held.acquire(wait=wait, while_waiting=while_waiting)
    try:
        yield held, other
    finally:
        held.release()
