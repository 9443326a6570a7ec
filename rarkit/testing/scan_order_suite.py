"""The conformance suite of scan orders."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import GridError
from rarkit.scan_orders.base import ScanOrder
from rarkit.testing.failure import for_all, require, trying
from rarkit.testing.part_suite import PartSuite, fresh, untouched_randomness
from rarkit.testing.strategies import grids

SMALL, LARGEST = 16, 72
"""Grids up to SMALL × SMALL are all tried, and some up to LARGEST × LARGEST."""
LONGEST = 72
ANSWERS = "requirement must answer for every grid of at least one row and column"
COMMON = ((24, 24), (32, 32), (48, 48), (64, 64), (16, 32), (32, 16), (14, 28), (32, 24))
TRIED = (
    *((height, width) for height in range(1, SMALL + 1) for width in range(1, SMALL + 1)),
    *((1, width) for width in range(SMALL + 1, LONGEST + 1)),
    *((height, 1) for height in range(SMALL + 1, LONGEST + 1)),
    *COMMON,
)


class ScanOrderSuite(PartSuite, ABC):
    """Set ``parts`` to instances, and ``grids`` to grids that all of them must support."""

    parts: ClassVar[Sequence[ScanOrder]] = ()
    grids: ClassVar[Sequence[tuple[int, int]]] = ((1, 1), (2, 2), (4, 4), (16, 16))

    def test_it_serves_the_grids_it_should(self, part: ScanOrder) -> None:
        for height, width in self.grids:
            reason = part.requirement(height, width)
            fault = f"is refused: {reason}"
            require(reason is None, part, _on(height, width), fault, "Support the grid, or leave it out of the suite's grids")
        served = any(part.requirement(*grid) is None for grid in TRIED)
        require(served, part, f"on grids up to {SMALL}×{SMALL}", "supports none", "requirement returns None for supported grids")

    def test_it_visits_every_cell_once(self, part: ScanOrder) -> None:
        for grid in _served(part):
            _order(part, *grid)
        for_all(grids(LARGEST), lambda grid: _check_if_served(part, grid), most=40)

    def test_it_gives_the_same_order_every_time(self, part: ScanOrder) -> None:
        again = fresh(part)
        kept, served = {}, _served(part)
        with untouched_randomness(part, "asked for orders"):
            for grid in served:
                order_L = _order(part, *grid)
                kept[grid] = order_L.copy()
                if order_L.flags.writeable:
                    order_L[:] = kept[grid][::-1]
        # From the other end: what depends on the calls before gives other orders.
        for grid in reversed(served):
            for other in (part, again):
                same = np.array_equal(_order(other, *grid), kept[grid])
                cure = "An order may depend on settings and grid alone, and each call returns an array of its own"
                require(same, part, _on(*grid), "gives another order when asked again", cure)

    def test_it_gives_the_same_order_in_another_process(self, part: ScanOrder) -> None:
        self._is_the_same_elsewhere(part)

    def test_rank_is_the_inverse(self, part: ScanOrder) -> None:
        for grid in _served(part):
            with trying(part, _on(*grid)):
                rank_L = part.rank(*grid)
            steps_L = np.arange(grid[0] * grid[1])
            inverse = np.array_equal(rank_L[_order(part, *grid)], steps_L)
            require(inverse, part, _on(*grid), "has a rank that is not the inverse of its order", "Define order alone")

    def test_grids_that_it_cannot_serve_are_refused(self, part: ScanOrder) -> None:
        for height, width in (*((side, 0) for side in range(4)), *((0, side) for side in range(4)), *TRIED):
            given = _on(height, width)
            if height and width:
                with trying(part, given, ANSWERS):
                    reason = part.requirement(height, width)
                clause = reason is None or (isinstance(reason, str) and bool(reason.strip()))
                require(clause, part, given, f"requires {reason!r}", "requirement returns None, or a reason in words")
                if reason is None:
                    continue
            require(_refused(part, height, width), part, given, "is not refused", "Let the base class check the grid")


def _on(height: int, width: int) -> str:
    return f"on a grid of {height}×{width}"


def _served(part: ScanOrder) -> list[tuple[int, int]]:
    served = []
    for grid in TRIED:
        with trying(part, _on(*grid), ANSWERS):
            if part.requirement(*grid) is None:
                served.append(grid)
    return served


def _check_if_served(part: ScanOrder, grid: tuple[int, int]) -> None:
    if part.requirement(*grid) is None:
        first_L, again_L = (_order(part, *grid) for _ in range(2))
        fault, cure = "gives another order when asked again", "An order may depend on settings and grid alone"
        require(np.array_equal(first_L, again_L), part, _on(*grid), fault, cure)


def _order(part: ScanOrder, height: int, width: int) -> NDArray[np.int64]:
    """The order, checked: the base class of all orders refuses what is not a permutation."""
    with trying(part, _on(height, width), "Visit every cell once, or say in requirement which grids are supported"):
        order_L = part.order(height, width)
    # Checked again: a class whose order is not called through the base class (assigned later, say) passes by its check.
    well = isinstance(order_L, np.ndarray) and order_L.dtype == np.int64 and order_L.flags.c_contiguous
    require(
        well, part, _on(height, width), "returns no contiguous array of int64", "Return np.ascontiguousarray(…, dtype=np.int64)"
    )
    permutation = np.array_equal(np.sort(order_L), np.arange(height * width))
    require(permutation, part, _on(height, width), "is not a permutation of the cells", "Visit every cell once")
    return order_L


def _refused(part: ScanOrder, height: int, width: int) -> bool:
    try:
        part.order(height, width)
    except GridError:
        return True
    return False
