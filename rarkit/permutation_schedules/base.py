"""Permutation schedules: the probability, over training, that a sample is trained on a random permutation."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from rarkit.registry.component import Component


class PermutationSchedule(Component):
    """The random ratio r as a pure function of training progress (RAR, section 3.2: "randomness annealing")."""

    kind: ClassVar[str] = "permutation_schedules"

    @abstractmethod
    def random_ratio(self, step: int, total: int) -> float:
        """The probability in [0, 1] that a sample of this step is trained on a random permutation.

        Args:
            step: 0 ≤ step ≤ total; the first optimizer step is step 0.
            total: number of training steps, at least 1.
        """
