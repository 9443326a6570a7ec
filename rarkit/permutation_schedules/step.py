"""Step: a piecewise constant random ratio."""

from __future__ import annotations

from typing import Annotated, Literal, Self, final

from pydantic import Field, model_validator

from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.progress import Point, step_of

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]


@final
class Step(PermutationSchedule):
    """Piecewise constant: the ratio changes at each of ``points``; ``ratios`` has one entry more than ``points``."""

    name: Literal["step"] = "step"
    """Selects this permutation schedule."""
    points: tuple[Point, ...] = (0.5, 0.75)
    """When the ratio changes, ascending: steps (whole numbers) or fractions of training (with a decimal point)."""
    ratios: tuple[Ratio, ...] = (1.0, 0.5, 0.0)
    """The ratios before the first point, between consecutive points, and from the last point on."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.ratios) != len(self.points) + 1:
            raise ValueError(
                f"{len(self.points)} points divide training into {len(self.points) + 1} parts, but there are "
                f"{len(self.ratios)} ratios"
            )
        if len({type(point) for point in self.points}) > 1:
            raise ValueError(
                f"points = {list(self.points)}: give all as steps (whole numbers) or all as fractions (with a decimal point)"
            )
        if list(self.points) != sorted(set(self.points)):
            raise ValueError(f"points = {list(self.points)} are not in ascending order")
        return self

    def random_ratio(self, step: int, total: int) -> float:
        passed = sum(step >= step_of(point, total) for point in self.points)
        return self.ratios[passed]
