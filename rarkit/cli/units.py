"""Formats quantities for reading."""

from __future__ import annotations


def size(count: int) -> str:
    """A number of bytes in binary units."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} TiB"


def duration(seconds: float) -> str:
    """A time in the largest unit of which there is at least one: seconds, minutes, hours, days."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s" if seconds >= 0.5 else "under a second"


def brief(seconds: float) -> str:
    """A short time: milliseconds below a second."""
    return f"{1000 * seconds:,.3g} ms" if seconds < 0.9995 else f"{seconds:,.1f} s"


def gpu_time(hours: float) -> str:
    """GPU-hours, in hours or minutes."""
    for unit, seconds in (("hours", 3600), ("minutes", 60)):
        if hours * 3600 >= seconds:
            return f"{hours * 3600 / seconds:,.1f} GPU-{unit}"
    return "under a GPU-minute"
