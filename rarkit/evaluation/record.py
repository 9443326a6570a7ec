"""One number of an evaluation, beside the same number of other sets of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

from rarkit.files.stored_json import Text


@final
@dataclass(frozen=True)
class MetricRecord:
    """One number, as ``metrics.json``, the report and the terminal show it."""

    name: Text
    """In lower case with underscores."""
    value: float
    low: float | None = None
    """The lower end of its interval, 5 %; None where there is no interval."""
    high: float | None = None
    """The upper end, 95 %."""
    unit: Text = ""
    better: Literal["higher", "lower", ""] = ""
    """Which direction is better; empty where neither is."""
    explanation: Text = field(default="", repr=False)
    yardsticks: Mapping[Text, float] = field(default_factory=dict, repr=False)
    """The same number of other sets, by the names that readers know them by."""
    no_interval: Text = field(default="", repr=False)
    """Why there is no interval though there could be one: the end of a sentence."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MetricRecord:
        """What ``to_json`` gave."""
        return cls(**data)
