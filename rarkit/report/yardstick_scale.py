"""A metric and its yardsticks as marks on one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from rarkit.evaluation.record import MetricRecord

OWN_LABEL = "this run"


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


def marks(metric: MetricRecord) -> tuple[Mark, ...]:
    """The metric and its yardsticks on a scale from 0; the best comes first if it is known which direction is better.

    A scale that starts at 0 shows a small difference as small. Values that are not finite are not on it.
    """
    ends = (metric.low, metric.high) if metric.low is not None and metric.high is not None else ()
    values = [metric.value, *metric.yardsticks.values(), *ends]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    half_length = (high / 2 - low / 2) or 1.0  # Halves, because the whole may overflow.

    def percent(value: float) -> float | None:
        return 100 * ((value / 2 - low / 2) / half_length) if math.isfinite(value) else None

    shown_ends = [end for end in map(percent, ends) if end is not None]
    interval = (shown_ends[0], shown_ends[1]) if len(shown_ends) == 2 else None
    own = Mark(OWN_LABEL, metric.value, percent(metric.value), interval, own=True)
    all_marks = [own, *(Mark(label, value, percent(value), None, own=False) for label, value in metric.yardsticks.items())]
    if metric.better in ("higher", "lower"):
        sign = -1 if metric.better == "higher" else 1
        all_marks.sort(key=lambda mark: math.inf if math.isnan(mark.value) else sign * mark.value)
    return tuple(all_marks)
