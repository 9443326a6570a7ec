"""Points in training, given as a step or as a fraction."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rarkit.registry.bounds import Step

Point = Annotated[Step, Field(strict=True)] | Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
"""A whole number is a step (``125000``; ``1`` is step 1), a number with a decimal point a fraction of all steps (``0.5``, ``1.0``).

Strict, so that ``true`` and ``"0.5"`` are refused. A step beyond the end of training is never reached.
"""


def step_of(point: int | float, total: int) -> float:
    """Converts a point to a step of a training of ``total`` steps."""
    return point if isinstance(point, int) else point * total


def share_between(step: int, start: float, end: float) -> float:
    """How far ``step`` is from ``start`` to ``end``: 0 before, 1 after, linear between. A jump to 1 if both are equal."""
    if step >= end:
        return 1.0
    if step <= start:
        return 0.0
    return (step - start) / (end - start)
