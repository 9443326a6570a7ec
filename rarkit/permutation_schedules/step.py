"""Step: the random ratio in stairs."""

from __future__ import annotations

from typing import Annotated, Literal, Self, final

from pydantic import Field, model_validator

from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.progress import Point, step_of

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]


@final
class Step(PermutationSchedule):
    """Constant between ``points``: ``ratios`` has one entry more, the ratio before the first point, after it, and so on."""

    name: Literal["step"] = "step"
    """Chooses this schedule."""
    points: tuple[Point, ...] = (0.5, 0.75)
    """Where the ratio changes, in rising order: steps (whole numbers) or fractions of training (with a point)."""
    ratios: tuple[Ratio, ...] = (1.0, 0.5, 0.0)
    """The ratio before the first point, between each two, and from the last on."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.ratios) != len(self.points) + 1:
            raise ValueError(
                f"{len(self.points)} points cut training into {len(self.points) + 1} parts, but there are {len(self.ratios)} ratios"
            )
        if len({type(point) for point in self.points}) > 1:
            raise ValueError(f"points = {list(self.points)}: give all as steps (whole numbers) or all as fractions (with a point)")
        if list(self.points) != sorted(set(self.points)):
            raise ValueError(f"points = {list(self.points)} do not rise")
        return self

    def random_ratio(self, step: int, total: int) -> float:
        passed = sum(step >= step_of(point, total) for point in self.points)
        return self.ratios[passed]
