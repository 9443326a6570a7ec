"""One number of an evaluation, with what is needed to show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True)
class Measure:
    """A metric's value, its interval where there is one, and which way is better."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    better: Literal["higher", "lower", "closer to 1", "neither"] = "neither"
