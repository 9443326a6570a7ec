"""The common base of linear and cosine: annealing from 1 to 0 between two points."""

from __future__ import annotations

from abc import ABC
from typing import Self

from pydantic import model_validator

from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.progress import Point


class Annealing(PermutationSchedule, ABC):
    """A random ratio of 1 until ``start`` that falls to 0 at ``end`` and stays there."""

    start: Point = 0.5
    """When the ratio starts to fall: a step (whole number) or a fraction of training (with a decimal point)."""
    end: Point = 0.75
    """When the ratio reaches 0: a step (whole number) or a fraction of training (with a decimal point)."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if type(self.start) is not type(self.end):
            raise ValueError(
                f"start = {self.start} and end = {self.end}: give both as steps (whole numbers) or both as fractions "
                "(with a decimal point)"
            )
        if self.start > self.end:
            raise ValueError(f"start = {self.start} is after end = {self.end}")
        return self
