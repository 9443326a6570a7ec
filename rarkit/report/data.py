"""What the page of a run shows, as plain data: rendering it needs neither the store nor the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from rarkit.evaluation.record import MetricRecord
from rarkit.rendering.figures import Curve, PictureGrid, Scan


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
    metrics: tuple[MetricRecord, ...] = ()
    notes: tuple[str, ...] = ()
    rehearsal: bool = False
