"""What the page of a run shows, as plain data: rendering it needs neither the store nor the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from rarkit.rendering.figures import Curve, PictureGrid, Scan


@final
@dataclass(frozen=True)
class Metric:
    """One number beside its yardsticks: the same number of other sets of images.

    ``low`` and ``high`` are the ends of its interval, or None; ``better`` is ``"higher"``, ``"lower"`` or empty.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    unit: str
    better: str
    explanation: str
    yardsticks: tuple[tuple[str, float], ...]


@final
@dataclass(frozen=True)
class StageRow:
    """What became of one stage: ``action`` is ``"ran"`` or ``"cached"``, ``note`` says why."""

    name: str
    action: str
    seconds: float
    fingerprint: str
    note: str


@final
@dataclass(frozen=True)
class RunReport:
    """Everything on the page. Empty parts are left out.

    ``notes`` are shown at the top; so is, for a ``rehearsal``, that the numbers do not count.
    """

    title: str
    recipe_name: str
    recipe_toml: str
    command: str
    when: str
    seconds: float
    machine: str
    stages: tuple[StageRow, ...] = ()
    grids: tuple[PictureGrid, ...] = ()
    curves: tuple[Curve, ...] = ()
    scan: Scan | None = None
    metrics: tuple[Metric, ...] = ()
    notes: tuple[str, ...] = ()
    rehearsal: bool = False
