"""A clock that never goes back."""

from __future__ import annotations

import time


def seconds() -> float:
    """Seconds since some moment. Those in which the machine sleeps count, which ``time.monotonic`` leaves out under Linux."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
