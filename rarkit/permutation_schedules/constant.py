"""Constant: the same random ratio throughout."""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field

from rarkit.permutation_schedules.base import PermutationSchedule


@final
class Constant(PermutationSchedule):
    """The same random ratio at every step: 0 is ordinary autoregressive training, 1 permutes every sample."""

    name: Literal["constant"] = "constant"
    """Selects this permutation schedule."""
    ratio: float = Field(default=1.0, ge=0.0, le=1.0)
    """Probability that a sample is permuted."""

    def random_ratio(self, step: int, total: int) -> float:
        return self.ratio
