"""A metric and its yardsticks as marks on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from rarkit.evaluation.record import MetricRecord
from rarkit.rendering.axes import HUGE, TINY, Axis
from rarkit.rendering.numbers import number

OWN_LABEL = "this run"
CROWDED = 0.1
"""Where two values lie in this lowest part of a linear scale, the largest value squeezes them into one dot."""
BREAK = 15.0
"""Percent of a broken scale at which its logarithmic part begins; 0 lies before the break."""


@final
@dataclass(frozen=True)
class Mark:
    """One value on the scale; ``percent`` and ``interval`` are percentages of the scale, None where there is nothing to show."""

    label: str
    value: float
    percent: float | None
    interval: tuple[float, float] | None
    own: bool
    """Whether it is the run's own value, not a yardstick's."""


@final
@dataclass(frozen=True)
class Scale:
    """Marks on a scale whose kind the page names."""

    marks: tuple[Mark, ...]
    """The best comes first if it is known which direction is better."""
    kind: str
    """What to say of it; empty for a linear scale."""
    ticks: tuple[tuple[float, str], ...]
    """Percentages with the numbers that belong there: the ends of the scale, and both sides of a break."""


def scale(metric: MetricRecord) -> Scale:
    """The metric and its yardsticks on one scale.

    A linear scale from 0 shows a small difference as small. Where it would squeeze values into one dot, the scale is logarithmic,
    and broken if a value is 0. Values that are not finite are not on it.
    """
    ends = (metric.low, metric.high) if metric.low is not None and metric.high is not None else ()
    values = [metric.value, *metric.yardsticks.values()]
    finite = [value for value in (*values, *ends) if math.isfinite(value)]
    logarithmic = _is_crowded(values, finite)
    shown = _logarithmic(finite) if logarithmic else _linear(finite)

    shown_ends = [end for end in map(shown.percent, ends) if end is not None]
    interval = (shown_ends[0], shown_ends[1]) if len(shown_ends) == 2 else None
    own = Mark(OWN_LABEL, metric.value, shown.percent(metric.value), interval, own=True)
    yardsticks = (Mark(label, value, shown.percent(value), None, own=False) for label, value in metric.yardsticks.items())
    marks = [own, *yardsticks]
    if metric.better in ("higher", "lower"):
        sign = -1 if metric.better == "higher" else 1
        marks.sort(key=lambda mark: math.inf if math.isnan(mark.value) else sign * mark.value)
    return Scale(tuple(marks), shown.kind, shown.ticks)


@final
@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    log: bool = False
    start: float = 0.0
    """The percentage of ``low``."""

    def percent(self, value: float) -> float | None:
        if not math.isfinite(value):
            return None
        if self.log:
            inside = Axis(self.low, self.high, self.start, 100.0, log=True).at(value) if value > 0 else 0.0
            return min(max(inside, 0.0), 100.0)
        return 100 * ((value / 2 - self.low / 2) / (self.high / 2 - self.low / 2))  # Halves, because the whole may overflow.

    @property
    def kind(self) -> str:
        return ("broken logarithmic scale" if self.start else "logarithmic scale") if self.log else ""

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        zero = ((0.0, "0"),) if self.start else ()
        return (*zero, (self.start, number(self.low)), (100.0, number(self.high)))


def _is_crowded(values: Sequence[float], finite: Sequence[float]) -> bool:
    """Whether a linear scale would squeeze values, and a logarithmic one can be had."""
    if not finite or min(finite) < 0 or max(finite) > HUGE or any(0 < value < TINY for value in finite):
        return False
    return sum(0 < value < CROWDED * max(finite) for value in values) > 1


def _linear(finite: Sequence[float]) -> _Range:
    low, high = min([0.0, *finite]), max([0.0, *finite])
    return _Range(low, high if high / 2 > low / 2 else low + 2.0)


def _logarithmic(finite: Sequence[float]) -> _Range:
    positive = [value for value in finite if value > 0]
    start = BREAK if min(finite) == 0 else 0.0
    return _Range(_round_below(min(positive)), _round_above(max(positive)), log=True, start=start)


def _round_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max((factor * power for factor in (1, 2, 5) if factor * power <= value), default=value)


def _round_above(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min((factor * power for factor in (1, 2, 5, 10) if factor * power >= value), default=value)
