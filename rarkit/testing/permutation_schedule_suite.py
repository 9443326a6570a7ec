"""The conformance suite of permutation schedules."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.testing.part_suite import PartSuite


class PermutationScheduleSuite(PartSuite, ABC):
    """Set ``parts`` to instances, and ``falls`` if their random ratios never rise."""

    parts: ClassVar[Sequence[PermutationSchedule]]
    falls: ClassVar[bool] = False

    def test_the_ratio_is_a_probability_at_every_step(self) -> None:
        for part in self.parts:
            for total in (1, 2, 7, 100):
                for step in range(total + 1):
                    ratio = part.random_ratio(step, total)
                    assert isinstance(ratio, float), f"{part!r}: {ratio!r} is not a float"
                    assert 0.0 <= ratio <= 1.0, f"{part!r} at step {step} of {total}: {ratio}"

    def test_it_is_a_pure_function(self) -> None:
        for part in self.parts:
            forwards = [part.random_ratio(step, 50) for step in range(51)]
            backwards = [part.random_ratio(step, 50) for step in reversed(range(51))]
            assert forwards == backwards[::-1]

    def test_it_falls_if_it_says_so(self) -> None:
        for part in self.parts:
            ratios = [part.random_ratio(step, 200) for step in range(201)]
            assert not self.falls or ratios == sorted(ratios, reverse=True), f"the random ratio of {part!r} rises"
