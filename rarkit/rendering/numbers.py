"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
"""How numbers at ticks are shortened: from which size on, divided by what, and with which letter."""

_WRITTEN = {"fid": "FID", "sfid": "sFID", "rfid": "rFID", "psnr": "PSNR", "ssim": "SSIM", "frechet": "Fréchet"}
"""Names that are not written in lower case."""


def number(value: float | None) -> str:
    """A number to four figures; nothing for None, a dash for NaN."""
    if value is None:
        return ""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def words(name: str) -> str:
    """The name of a metric as people write it: ``reconstruction PSNR`` for ``reconstruction_psnr``."""
    return " ".join(_WRITTEN.get(word, word) for word in name.split("_"))


def duration(seconds: float) -> str:
    """A time span in its two largest units: ``0.4 s``, ``38 s``, ``2 min 05 s``, ``3 h 07 min``, ``2 d 04 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Round values in one common form: with as many decimals as tell them apart, thousands as ``k``, ``M``, ``G``."""
    if not ticks:
        return []
    largest = max(abs(tick) for tick in ticks)
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=largest)
    if step == 0 or not 1e-300 < largest < 1e15:
        return [_minus(f"{tick:.6g}") for tick in ticks]
    even = all(abs(tick / step - round(tick / step)) < 1e-6 for tick in ticks)
    if largest < 1e-3 and not even:
        return [_minus(f"{tick:.0e}".replace("e-0", "e-").replace("e-", "e−")) if tick else "0" for tick in ticks]
    if largest < 1e-3:
        power = math.floor(math.log10(largest) + 1e-9)
        labels = tick_labels([tick / 10.0**power for tick in ticks])
        return [label if label == "0" else f"{label}e−{-power}" for label in labels]
    unit, sign = next(((u, s) for least, u, s in _UNITS if largest >= least and step >= u / 100), (1.0, ""))
    decimals = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    if not even:
        return [_minus(f"{tick / unit:.4g}{sign if tick else ''}") for tick in ticks]
    return [_minus(f"{tick / unit:.{decimals}f}{sign if tick else ''}") if tick else "0" for tick in ticks]


def _minus(text: str) -> str:
    return text.replace("-", "−") if text.startswith("-") else text
