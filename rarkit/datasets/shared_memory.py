"""Memory through which worker processes hand large arrays back: it carries gigabytes a second, a pipe some hundred megabytes."""

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
"""Shared memory at most. The system does not refuse what it cannot give: it kills for it."""


@final
@dataclass(frozen=True)
class Slot:
    """A stretch of shared memory, as another process finds it."""

    path: str
    start: int
    size: int


@final
@dataclass(frozen=True)
class Packed:
    """A result whose arrays lie in a slot one after the other, ``lengths`` bytes each; the rest of it is pickled."""

    pickled: bytes
    lengths: tuple[int, ...]


@final
class Slots:
    """Shared memory in slots of equal size. It belongs to no file, so nothing is left of it, however the process ends."""

    def __init__(self, count: int, size: int) -> None:
        """Raises OSError if the system has no room for it."""
        handle = os.memfd_create("rarkit")
        weakref.finalize(self, os.close, handle)
        # Reserved now: memory that is first missed when it is written to ends the process.
        os.posix_fallocate(handle, 0, count * size)
        self._memory = mmap.mmap(handle, count * size)
        path = f"/proc/{os.getpid()}/fd/{handle}"
        self._free = deque(Slot(path, number * size, size) for number in range(count))

    def take(self) -> Slot | None:
        """A free slot, if there is one."""
        return self._free.popleft() if self._free else None

    def give_back(self, slot: Slot | None) -> None:
        if slot is not None:
            self._free.append(slot)

    def unpacked(self, result: Any, slot: Slot | None) -> Any:
        """What was packed, in memory of its own."""
        if slot is None or not isinstance(result, Packed):
            return result
        buffers, start = [], slot.start
        for length in result.lengths:
            buffers.append(bytearray(memoryview(self._memory)[start : start + length]))
            start += length
        return pickle.loads(result.pickled, buffers=buffers)


def shared(count: int, size: int) -> Slots | None:
    """Slots, as many as there is room for, or None if there is for none: results then come through the pipe."""
    count = min(count, MOST_BYTES // size)
    try:
        return Slots(count, size) if count else None
    except (AttributeError, OSError):  # AttributeError: systems other than Linux
        return None


def packed(result: Any, slot: Slot | None) -> Any:
    """In a worker process: puts the arrays of a result into a slot, if they fit."""
    if slot is None:
        return result
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    parts = [buffer.raw() for buffer in buffers]
    if sum(part.nbytes for part in parts) > slot.size:
        return result
    try:
        memory = _memory(slot.path)
    except OSError:  # a system that hides processes from each other
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
