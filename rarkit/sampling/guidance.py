"""Classifier-free guidance over the steps of one image: logits = uncond + s_k · (cond − uncond). Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Literal, final

from pydantic import Field, ValidationError, model_validator

from rarkit.errors import UserError
from rarkit.registry.bounds import RateOrZero
from rarkit.registry.component import Settings
from rarkit.registry.contract import checked
from rarkit.registry.inputs import given, whole


class GuidanceSchedule(Settings, ABC):
    """The guidance scale as a pure function of the step. A scale of 1 leaves the model's conditional distribution unchanged."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, scale_at=_checked_scale)

    @abstractmethod
    def scale_at(self, step: int, total: int) -> float:
        """s_k at step k of ``total``, 0 ≤ k < total.

        Raises:
            UserError: the step is not a whole number from 0 to ``total`` − 1.
        """

    @final
    def guided_steps(self, total: int) -> int:
        """The number of steps that run the unconditional branch: up to the last with a scale ≠ 1."""
        return max((step + 1 for step in range(total) if self.scale_at(step, total) != 1.0), default=0)


def _checked_scale(schedule: GuidanceSchedule, scale_at: Callable[[int, int], float], step: int, total: int) -> float:
    whole("total", total, 1)
    return scale_at(whole("the step", step, 0, total - 1), total)


@final
class Constant(GuidanceSchedule):
    """The same scale at every step; 1 means no guidance."""

    name: Literal["constant"] = "constant"
    """Selects this guidance schedule."""
    scale: RateOrZero = 1.0
    """The scale s; above 1 it extrapolates from the unconditional past the conditional logits."""

    def scale_at(self, step: int, total: int) -> float:
        return self.scale


@final
class Linear(GuidanceSchedule):
    """Linear from ``start`` at the first step to ``scale`` at the last."""

    name: Literal["linear"] = "linear"
    """Selects this guidance schedule."""
    scale: RateOrZero
    """The scale at the last step."""
    start: RateOrZero = 1.0
    """The scale at the first step."""

    def scale_at(self, step: int, total: int) -> float:
        share = step / (total - 1) if total > 1 else 1.0
        return (1 - share) * self.start + share * self.scale


@final
class PowerCosine(GuidanceSchedule):
    """Rises from 1 towards s: s_k = 1 + (s − 1) · (1 − cos(π · (k / L)^p)) / 2, the schedule of the released RAR models.

    With power 0 the scale is s at every step.
    """

    name: Literal["power_cosine"] = "power_cosine"
    """Selects this guidance schedule."""
    scale: RateOrZero
    """The scale s that the last steps approach."""
    power: RateOrZero
    """The power p; the larger it is, the later guidance sets in."""

    def scale_at(self, step: int, total: int) -> float:
        return 1 + (self.scale - 1) * (1 - math.cos(math.pi * (step / total) ** self.power)) / 2


@final
class Interval(GuidanceSchedule):
    """Guidance within an interval of the steps, none before and after it.

    After Kynkäänniemi et al. (arXiv 2404.07724), who use an interval of noise levels; here it is an interval of steps.
    """

    name: Literal["interval"] = "interval"
    """Selects this guidance schedule."""
    scale: RateOrZero
    """The scale inside the interval."""
    start: float = Field(default=0.0, ge=0, le=1)
    """Start of the interval, as a fraction of the steps."""
    end: float = Field(default=1.0, ge=0, le=1)
    """End of the interval, as a fraction of the steps."""

    @model_validator(mode="after")
    def _start_before_end(self) -> Interval:
        if self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}: the interval would be empty")
        return self

    def scale_at(self, step: int, total: int) -> float:
        return self.scale if self.start * total <= step < self.end * total else 1.0


def as_schedule(guidance: Any) -> GuidanceSchedule:
    """Guidance as callers give it: a schedule, or the scale of all steps.

    Raises:
        UserError: it is neither, or the scale is out of range.
    """
    if isinstance(guidance, GuidanceSchedule):
        return guidance
    try:
        return Constant.model_validate({"scale": guidance}, strict=True)
    except ValidationError as error:
        raise UserError(f"guidance is {given(guidance)}; pass a number from 0, or a schedule of rarkit.sampling") from error


Guidance = Annotated[Constant | Linear | PowerCosine | Interval, Field(discriminator="name")]
"""Any guidance schedule, chosen by ``name``."""
