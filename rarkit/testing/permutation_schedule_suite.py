"""The conformance suite of permutation schedules."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from hypothesis import strategies as st

from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.testing.digests import digests
from rarkit.testing.failure import for_all, require, trying
from rarkit.testing.part_suite import PartSuite, fresh, untouched_randomness

SHORT = (*range(1, 65), 100, 200, 201, 256, 300)
"""Totals of which all steps are tried."""
LONG = (500, 501, 600, 1000, 1001, 1024, 4096, 5000, 10_000, 65_536, 100_000, 250_000, 1_000_000, 3_000_000, 10_000_000)
POINTS = 60
"""Steps that are tried of a longer total, besides the first and the last ones."""
LONGEST = 10**7


class PermutationScheduleSuite(PartSuite, ABC):
    """Set ``parts`` to instances, and ``falls`` if their random ratios never rise."""

    parts: ClassVar[Sequence[PermutationSchedule]] = ()
    falls: ClassVar[bool] = False

    def test_the_ratio_is_a_probability_at_every_step(self, part: PermutationSchedule) -> None:
        for total in (*SHORT, *LONG):
            for step in _steps(total):
                _ratio(part, step, total)
        for_all(POINT, lambda point: _check_twice(part, *point), most=60)

    def test_it_is_a_pure_function(self, part: PermutationSchedule) -> None:
        totals, again = (1, 7, 50, 300, 501, 1000, 250_000), fresh(part)
        points = [(step, total) for total in totals for step in _steps(total)]
        with untouched_randomness(part, "asked for ratios"):
            kept = {point: _ratio(part, *point) for point in points}
        # From the other end: what depends on the calls before gives other ratios.
        for step, total in reversed(points):
            for other in (part, again):
                ratio, before = _ratio(other, step, total), kept[step, total]
                fault = f"gives {ratio} where it gave {before} before"
                require(ratio == before, part, _at(step, total), fault, "Compute the ratio from step, total and settings alone")

    def test_it_gives_the_same_ratios_in_another_process(self, part: PermutationSchedule) -> None:
        self._is_the_same_elsewhere(part, digests(part, backwards=False), backwards=True)

    def test_it_falls_if_it_says_so(self, part: PermutationSchedule) -> None:
        for total in (*SHORT, *LONG) if self.falls else ():
            for step, later in pairwise(_steps(total)):
                before, after = _ratio(part, step, total), _ratio(part, later, total)
                fault = f"rises from {before} at step {step} to {after}"
                require(after <= before, part, _at(later, total), fault, "Correct it, or do not set falls in its suite")


def _points(total: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, total), st.just(total))


POINT = st.one_of(st.integers(1, 1000), st.integers(1, LONGEST)).flatmap(_points)
"""A step, and the total it belongs to."""


def _steps(total: int) -> list[int]:
    """All steps of a short total; of a longer one those at its ends, and some between them."""
    if total <= SHORT[-1]:
        return list(range(total + 1))
    ends = {0, 1, 2, 31, 32, 199, 200, 201, 256, total - 2, total - 1, total}
    return sorted({step for step in ends if step <= total} | {point * total // POINTS for point in range(POINTS)})


def _at(step: int, total: int) -> str:
    return f"at step {step} of {total}"


def _ratio(part: PermutationSchedule, step: int, total: int) -> float:
    cure = "Return a number from 0 to 1 for every step from 0 to total"
    with trying(part, _at(step, total), cure):
        ratio = part.random_ratio(step, total)
    require(isinstance(ratio, float) and 0.0 <= ratio <= 1.0, part, _at(step, total), f"gives {ratio!r}", cure)
    return ratio


def _check_twice(part: PermutationSchedule, step: int, total: int) -> None:
    first, again = _ratio(part, step, total), _ratio(part, step, total)
    fault = f"gives {first}, then {again}"
    require(first == again, part, _at(step, total), fault, "Compute the ratio from step, total and settings alone")
