"""Cosine: annealing along half a cosine."""

from __future__ import annotations

import math
from typing import Literal, final

from rarkit.permutation_schedules.annealing import Annealing
from rarkit.permutation_schedules.progress import share_between, step_of


@final
class Cosine(Annealing):
    """1 until ``start``, then along half a cosine to 0 at ``end``, slowly at both ends."""

    name: Literal["cosine"] = "cosine"
    """Selects this permutation schedule."""

    def random_ratio(self, step: int, total: int) -> float:
        share = share_between(step, step_of(self.start, total), step_of(self.end, total))
        return 0.5 * (1.0 + math.cos(math.pi * share))
