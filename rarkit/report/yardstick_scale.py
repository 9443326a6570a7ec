"""Where a metric stands among its yardsticks: the places of all of them on one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from rarkit.report.data import Metric

OWN = "this run"


@final
@dataclass(frozen=True)
class Place:
    """One value on the scale; ``share`` and ``band`` (its interval) are percentages of the scale, None where there are none."""

    label: str
    value: float
    share: float | None
    band: tuple[float, float] | None
    own: bool


def places(metric: Metric) -> tuple[Place, ...]:
    """The metric and its yardsticks on a scale from 0; the best comes first where a direction is known.

    A scale that starts at 0 shows a small difference as small. Values that are not finite have no place on it.
    """
    interval = (metric.low, metric.high) if metric.low is not None and metric.high is not None else None
    values = [metric.value, *(value for _, value in metric.yardsticks), *(interval or ())]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    half = (high / 2 - low / 2) or 1.0  # Halves, for the whole may overflow.

    def share(value: float) -> float | None:
        return 100 * ((value / 2 - low / 2) / half) if math.isfinite(value) else None

    ends = tuple(share(end) for end in interval or ())
    band = (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None
    found = [Place(OWN, metric.value, share(metric.value), band, own=True)]
    found += [Place(label, value, share(value), None, own=False) for label, value in metric.yardsticks]
    if metric.better in ("higher", "lower"):
        sign = -1 if metric.better == "higher" else 1
        found.sort(key=lambda place: math.inf if math.isnan(place.value) else sign * place.value)
    return tuple(found)
