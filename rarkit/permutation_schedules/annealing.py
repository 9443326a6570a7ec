"""What linear and cosine share: annealing from 1 to 0 between two points."""

from __future__ import annotations

from abc import ABC
from typing import Self

from pydantic import model_validator

from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.progress import Point


class Annealing(PermutationSchedule, ABC):
    """The random ratio is 1 until ``start``, 0 from ``end`` on, and falls between."""

    start: Point = 0.5
    """Where the ratio begins to fall: a step (whole number) or a fraction of training (with a point)."""
    end: Point = 0.75
    """Where it reaches 0: a step (whole number) or a fraction of training (with a point)."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if type(self.start) is not type(self.end):
            raise ValueError(
                f"start = {self.start} and end = {self.end}: give both as steps (whole numbers) or both as fractions (with a point)"
            )
        if self.start > self.end:
            raise ValueError(f"start = {self.start} lies after end = {self.end}")
        return self
