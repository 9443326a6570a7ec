"""Shared memory in which worker processes return large arrays: gigabytes a second, against hundreds of megabytes in a pipe."""

from __future__ import annotations

import mmap
import os
import pickle
import weakref
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

MOST_BYTES = 2**30
"""Maximum size of the shared memory: the system does not refuse too large a reservation, but kills processes for it later."""


@final
@dataclass(frozen=True)
class Slot:
    """A region of shared memory, addressable from another process."""

    path: str
    start: int
    size: int


@final
@dataclass(frozen=True)
class Packed:
    """A pickled result whose arrays, of ``lengths`` bytes, lie consecutively in a slot."""

    pickled: bytes
    lengths: tuple[int, ...]


@final
class Slots:
    """Shared memory in slots of equal size. It has no file name, so nothing is left behind however the process ends."""

    def __init__(self, count: int, size: int) -> None:
        """Raises OSError if the system cannot provide the memory."""
        handle = os.memfd_create("rarkit")
        weakref.finalize(self, os.close, handle)
        # Reserved now: running out of memory at the first write would kill the process.
        os.posix_fallocate(handle, 0, count * size)
        self._memory = mmap.mmap(handle, count * size)
        path = f"/proc/{os.getpid()}/fd/{handle}"
        self._free = deque(Slot(path, number * size, size) for number in range(count))

    def take(self) -> Slot | None:
        """A free slot, or None."""
        return self._free.popleft() if self._free else None

    def give_back(self, slot: Slot | None) -> None:
        if slot is not None:
            self._free.append(slot)

    def unpacked(self, result: Any, slot: Slot | None) -> Any:
        """The result, with its arrays copied out of the slot."""
        if slot is None or not isinstance(result, Packed):
            return result
        buffers, start = [], slot.start
        for length in result.lengths:
            buffers.append(bytearray(memoryview(self._memory)[start : start + length]))
            start += length
        return pickle.loads(result.pickled, buffers=buffers)


def shared(count: int, size: int) -> Slots | None:
    """Up to ``count`` slots, as many as fit, or None if shared memory is unavailable; results then come through the pipe."""
    count = min(count, MOST_BYTES // size)
    try:
        return Slots(count, size) if count else None
    except (AttributeError, OSError):  # AttributeError: not Linux
        return None


def packed(result: Any, slot: Slot | None) -> Any:
    """Runs in a worker process: moves the arrays of a result into a slot if they fit."""
    if slot is None:
        return result
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    parts = [buffer.raw() for buffer in buffers]
    if sum(part.nbytes for part in parts) > slot.size:
        return result
    try:
        memory = _memory(slot.path)
    except OSError:  # processes cannot see each other on this system
        return result
    start = slot.start
    for part in parts:
        memory[start : start + part.nbytes] = part
        start += part.nbytes
    return Packed(pickled, tuple(part.nbytes for part in parts))


@lru_cache(maxsize=1)
def _memory(path: str) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0)
