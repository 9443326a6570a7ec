"""Who holds a lock: what its file says, and whether that process is known to be gone."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self, final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rarkit.cache.record import Moment, Name
from rarkit.files.stored_json import Format, parsed

FORMAT = 3
"""The format of the lock files that this rarkit writes. Formats 1 (without a number) and 2 do not say in which namespace a process
is."""
SILENT_SECONDS = 600.0
"""After how long without a renewal, by its own clock, a holder is probably gone. Its clock may be wrong."""
AHEAD_SECONDS = 60.0
"""How far a clock may be ahead. What was renewed later than that has a wrong clock, or is no lock of a process."""
_FILE_BYTES = 512
"""Lock files are padded to a multiple of this, so that one is written over another in place."""

_Word = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Number = Annotated[int, Field(ge=0, lt=2**64)]


@final
class _NewerLock(BaseModel):
    """What every lock file says, whichever rarkit wrote it."""

    model_config = ConfigDict(strict=True)

    format: Format = 1
    token: _Word | None = None


@final
class StoredHolder(BaseModel):
    """What a lock file says."""

    model_config = ConfigDict(strict=True)

    token: _Word
    host: _Word
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    boot: _Word | None = None
    namespace: _Number | None = None
    started: _Number | None = None
    since: Moment | None = None
    heartbeat: Moment
    reads: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    format: Format = 1


@final
@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. ``boot``, ``namespace`` and ``started`` are None where the system does not tell them."""

    token: str | None
    """Random, and different for each time that a lock is taken."""
    host: str | None
    pid: int | None
    boot: str | None = None
    """The kernel's random number of this boot, the same in all containers of a machine."""
    namespace: int | None = None
    """The inode of the process's pid namespace: process numbers mean something within it alone."""
    started: int | None = None
    """When the process started, in the kernel's ticks since the boot: numbers are used again."""
    since: float | None = None
    """When the lock was taken, by the clock of its host, as ``time.time()``."""
    heartbeat: float = 0.0
    """When the lock was last renewed, by the same clock."""
    reads: tuple[str, ...] = ()
    """The outputs that it reads for what it writes, as ``stage/fingerprint``: they are not removed meanwhile."""
    format: int = FORMAT

    def __str__(self) -> str:
        if self.is_newer:
            return "a newer rarkit"
        since = "" if self.since is None else time.strftime(" (since %Y-%m-%d %H:%M:%S)", time.localtime(self.since))
        return f"process {self.pid} on {self.host}{since}"

    @classmethod
    def this_process(cls, token: str, reads: Sequence[str] = ()) -> Self:
        """This process, which takes a lock now."""
        boot, namespace, started = _identity()
        now = time.time()
        return cls(token, socket.gethostname(), os.getpid(), boot, namespace, started, now, now, tuple(reads))

    @classmethod
    def of(cls, contents: bytes) -> Self | None:
        """What a lock file says; None if it is half-written or damaged."""
        try:
            head = parsed(_NewerLock, contents)
            if head.format > FORMAT:
                return cls(head.token, None, None, format=head.format)
            return cls.stored(parsed(StoredHolder, contents))
        except ValueError:
            return None

    @classmethod
    def stored(cls, stored: StoredHolder) -> Self:
        """What ``as_json`` gave."""
        return cls(**stored.model_dump())

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data of this holder, alive now."""
        return asdict(replace(self, heartbeat=time.time()))

    def contents(self) -> bytes:
        """The lock file of this holder, alive now."""
        text = json.dumps(self.as_json()).encode()
        return text.ljust(-(-len(text) // _FILE_BYTES) * _FILE_BYTES - 1) + b"\n"

    @property
    def is_newer(self) -> bool:
        """Whether a newer rarkit wrote the file: nothing else in it can be relied on then."""
        return self.format > FORMAT

    @property
    def age(self) -> float:
        """Seconds since the last renewal, as far as the clocks of two machines agree; negative if the other's is ahead."""
        return time.time() - self.heartbeat

    def is_gone(self) -> bool:
        """Whether it is certain that the process has ended, because it ran here."""
        return self.runs_here() is False

    def runs_here(self) -> bool | None:
        """Whether the process is running; None if it is another machine's or container's.

        That a process number is free, or another process's, means something only in the namespace of the holder, of the same boot.
        A namespace's inode is used again only after its last process has ended.
        """
        boot, namespace, _ = _identity()
        here = socket.gethostname(), boot, namespace
        if self.is_newer or self.pid is None or None in (*here, self.started) or (self.host, self.boot, self.namespace) != here:
            return None
        return _runs(self.pid, self.started)

    @property
    def is_silent(self) -> bool:
        """Whether its last renewal is long ago by the clock of its host, which may be late."""
        return not self.is_newer and self.age > SILENT_SECONDS

    @property
    def is_ahead(self) -> bool:
        """Whether its last renewal is yet to come, by a clock that is wrong or because nobody holds the lock."""
        return not self.is_newer and self.age < -AHEAD_SECONDS


def _identity() -> tuple[str | None, int | None, int | None]:
    """Boot, pid namespace, and start of this process; None for what the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        # A /proc that was mounted for another namespace has other numbers.
        started = _start(os.getpid()) if os.readlink("/proc/self") == str(os.getpid()) else None
    except (FileNotFoundError, PermissionError):
        # Not Linux, or /proc is not mounted or hidden.
        return None, None, None
    return (boot, namespace, started) if started is not None else (None, None, None)


def _start(pid: int) -> int | None:
    """When a process started; None if the system does not tell, -1 if it has ended and only its parent has not noticed."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name of the program comes second, in parentheses, and may hold anything.
    state, *fields = text.rpartition(")")[2].split()
    return -1 if state in "ZX" else int(fields[18])


def _runs(pid: int, started: int | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    now = _start(pid)
    return now is None or now == started
