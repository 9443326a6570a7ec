"""Linear: the paper's randomness annealing."""

from __future__ import annotations

from typing import Literal, final

from rarkit.permutation_schedules.annealing import Annealing
from rarkit.permutation_schedules.progress import share_between, step_of


@final
class Linear(Annealing):
    """1 until ``start``, then linear to 0 at ``end`` (RAR, section 3.2; released models: steps 125,000 and 187,500)."""

    name: Literal["linear"] = "linear"
    """Selects this permutation schedule."""

    def random_ratio(self, step: int, total: int) -> float:
        return 1.0 - share_between(step, step_of(self.start, total), step_of(self.end, total))
