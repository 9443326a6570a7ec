"""What the page of a run shows, as plain data: rendering it needs neither the store nor the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from rarkit.evaluation.record import MetricRecord
from rarkit.rendering.figures import Curve, PictureGrid, Scan


@final
@dataclass(frozen=True)
class StageRow:
    """One stage's output, as the run that made it left it, which may be an earlier one."""

    name: str
    fingerprint: str
    finished: str
    """When it was finished."""
    seconds: float | None
    """How long it took; None where that was not recorded."""
    machine: str
    """On what it was made; empty where that was not recorded."""


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
    facts: tuple[str, ...] = ()
    """What was trained and sampled, in a few words each."""
    stages: tuple[StageRow, ...] = ()
    grids: tuple[PictureGrid, ...] = ()
    curves: tuple[Curve, ...] = ()
    scan: Scan | None = None
    metrics: tuple[MetricRecord, ...] = ()
    fit_curves: tuple[Curve, ...] = ()
    """Of the tokenizer's training."""
    fit_sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rehearsal: bool = False
