"""Classifier-free guidance over the steps of one image: logits = uncond + s_k · (cond − uncond). Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal, final

from pydantic import Field, model_validator

from rarkit.registry.component import Settings


class GuidanceSchedule(Settings, ABC):
    """The guidance scale as a pure function of the step. At scale 1 the model's own distribution is drawn from."""

    @abstractmethod
    def scale_at(self, step: int, total: int) -> float:
        """s_k for step k of ``total``: 0 ≤ step < total."""

    @final
    def guided_steps(self, total: int) -> int:
        """How many steps need the unconditional branch: up to the last whose scale is not 1."""
        return max((step + 1 for step in range(total) if self.scale_at(step, total) != 1.0), default=0)


@final
class Constant(GuidanceSchedule):
    """The same scale at every step; 1 is no guidance."""

    name: Literal["constant"] = "constant"
    """Chooses this schedule."""
    scale: float = Field(default=1.0, ge=0)
    """s: how far to go from the unconditional towards the conditional logits."""

    def scale_at(self, step: int, total: int) -> float:
        return self.scale


@final
class Linear(GuidanceSchedule):
    """From ``start`` at the first step in a straight line to ``scale`` at the last."""

    name: Literal["linear"] = "linear"
    """Chooses this schedule."""
    scale: float = Field(ge=0)
    """s at the last step."""
    start: float = Field(default=1.0, ge=0)
    """s at the first step."""

    def scale_at(self, step: int, total: int) -> float:
        share = step / (total - 1) if total > 1 else 1.0
        return (1 - share) * self.start + share * self.scale


@final
class PowerCosine(GuidanceSchedule):
    """s_k = 1 + (s − 1) · (1 − cos(π · (k / L)^p)) / 2, from 1 up to s: the schedule of the released RAR models.

    With power 0 the scale is s at every step.
    """

    name: Literal["power_cosine"] = "power_cosine"
    """Chooses this schedule."""
    scale: float = Field(ge=0)
    """s: the scale that is approached in the end."""
    power: float = Field(ge=0)
    """p: the larger, the later guidance sets in."""

    def scale_at(self, step: int, total: int) -> float:
        return 1 + (self.scale - 1) * (1 - math.cos(math.pi * (step / total) ** self.power)) / 2


@final
class Interval(GuidanceSchedule):
    """Guidance in a part of the steps only, none before and after.

    After Kynkäänniemi et al. (arXiv 2404.07724), whose interval is one of noise levels; ours is one of steps.
    """

    name: Literal["interval"] = "interval"
    """Chooses this schedule."""
    scale: float = Field(ge=0)
    """s inside the interval."""
    start: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps after which guidance sets in."""
    end: float = Field(default=1.0, ge=0, le=1)
    """Share of the steps after which it stops."""

    @model_validator(mode="after")
    def _start_before_end(self) -> Interval:
        if self.start > self.end:
            raise ValueError(f"start {self.start} lies after end {self.end}: the interval would be empty")
        return self

    def scale_at(self, step: int, total: int) -> float:
        return self.scale if self.start * total <= step < self.end * total else 1.0


Guidance = Annotated[Constant | Linear | PowerCosine | Interval, Field(discriminator="name")]
"""Any of the schedules, chosen by ``name``."""
