"""Permutation schedules: the probability, over training, that a sample is trained on a random permutation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from rarkit.registry.component import Component
from rarkit.registry.contract import broken, checked
from rarkit.registry.inputs import whole

SHOWN_STEPS = 1000
"""Of the training that notebooks show a schedule of."""
CHECKED_STEPS = 10_000
"""The most intervals between steps at which a schedule is checked: all steps of short trainings, evenly spaced ones of others."""


class PermutationSchedule(Component):
    """The random ratio r as a pure function of training progress (RAR, section 3.2: "randomness annealing").

    The base class checks what ``random_ratio`` is given, and every ratio that it returns.
    """

    kind: ClassVar[str] = "permutation_schedules"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, random_ratio=_checked_ratio)

    @abstractmethod
    def random_ratio(self, step: int, total: int) -> float:
        """The probability in [0, 1] that a sample of this step is trained on a random permutation.

        Args:
            step: 0 ≤ step ≤ total; the first optimizer step is step 0.
            total: number of training steps, at least 1.

        Raises:
            UserError: the step is not a whole number from 0 to ``total``, or the total not one from 1.
            PluginError: the subclass returned anything else.
        """

    @final
    def _repr_html_(self) -> str:
        """The ratio over a training, for notebooks."""
        from rarkit.rendering.figures import Curve, Series
        from rarkit.rendering.notebook import chart

        step_S, total = np.arange(SHOWN_STEPS + 1), SHOWN_STEPS
        ratio_S = np.array([self.random_ratio(int(step), total) for step in step_S])
        line = Series(self.name, step_S / total, ratio_S)
        return str(chart(Curve(f"Permutation schedule {self.name}", "share of training", "random ratio", (line,))))

    @final
    def check(self, total: int) -> None:
        """Raises PluginError unless the ratio is a probability over a whole training of ``total`` steps."""
        intervals = min(total, CHECKED_STEPS)
        for point in range(intervals + 1):
            self.random_ratio(point * total // intervals, total)


def _checked_ratio(part: PermutationSchedule, random_ratio: Callable[[int, int], Any], step: int, total: int) -> float:
    whole("total", total, 1)
    ratio = random_ratio(whole("the step", step, 0, total), total)
    # A comparison with NaN is false.
    if not isinstance(ratio, Real) or not 0.0 <= float(ratio) <= 1.0:
        raise broken(part, f"returns {ratio!r} at step {step:,} of {total:,}; a random ratio is a number from 0 to 1")
    return float(ratio)
