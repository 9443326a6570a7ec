"""Axes of charts: a range of values on a range of pixels, and round values to mark on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

TINY = 1e-290
"""Anything nearer to zero counts as zero: quotients of such numbers are no longer exact."""
HUGE = 1e300
"""Anything beyond counts as infinite: differences of such numbers may be."""


@final
@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` > ``low`` on pixels from ``start`` to ``stop``; logarithmic only for ``low`` > 0."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; not a number where the value has none."""
        if not abs(value) <= HUGE or (self.log and value < TINY):
            return math.nan
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Some round values within the range, rising: two at least, six at most, or a power of ten each."""
        if not self.log:
            return self._linear_ticks()
        powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        if len(powers) >= 2:
            return [10.0**power for power in powers[:: math.ceil(len(powers) / 6)]]
        return self._linear_ticks()

    def _linear_ticks(self) -> list[float]:
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough * 0.999), 10 * power)
        first, last = (self.low / step - 1e-9, self.high / step + 1e-9)
        ticks = [min(max(index * step, self.low), self.high) for index in range(math.ceil(first), math.floor(last) + 1)]
        return ticks if len(ticks) > 1 else [self.low, self.high]


def axis(values: NDArray[Any], start: float, stop: float, *, log: bool = False) -> Axis:
    """An axis over all values that it can show: from 0 to twice a single value, from 0 to 1 for a single 0 or none.

    Args:
        values: of any shape; those that are not finite, or not positive on a logarithmic axis, do not count.
        start: the pixel of the least value.
        stop: the pixel of the greatest.
        log: whether the axis is to be logarithmic; it is linear if no value is positive.
    """
    shown = values[np.abs(values) <= HUGE]
    positive = shown[shown >= TINY]
    log = log and positive.size > 0
    shown = positive if log else shown
    if not shown.size:
        return Axis(0.0, 1.0, start, stop)
    low, high = float(shown.min()), float(shown.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), TINY):
        if log:
            return Axis(max(0.5 * low, TINY), max(1.5 * high, 2 * TINY), start, stop, log)
        # Zero is in sight, and a ratio that stays 0 gets no negative half.
        low, high = (0.0, 1.0) if max(abs(low), abs(high)) < TINY else (min(2 * low, 0.0), max(2 * high, 0.0))
    return Axis(low, high, start, stop, log)
