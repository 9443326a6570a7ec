"""Has the C library keep memory that is freed, for work that frees and takes the same amounts at every step."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Numbers and defaults of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_USUAL = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}
_KEEPING = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}


@contextmanager
def kept_memory(device: str = "cpu") -> Iterator[None]:
    """Meanwhile, freed memory stays with the process; afterwards it is given back. Does nothing on GPUs, or without glibc.

    Otherwise a training step on a CPU takes its memory from the system anew, which clears it page by page: about a twentieth of a
    step. In return, the process may hold somewhat more than it needs at a time.

    Args:
        device: what the work runs on, as torch calls it.
    """
    if not device.startswith("cpu") or platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    for setting, value in _KEEPING.items():
        library.mallopt(setting, value)
    try:
        yield
    finally:
        for setting, value in _USUAL.items():
            library.mallopt(setting, value)
        library.malloc_trim(0)
