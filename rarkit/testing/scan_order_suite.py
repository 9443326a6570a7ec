"""The conformance suite of scan orders."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest

from rarkit.errors import GridError
from rarkit.scan_orders.base import ScanOrder
from rarkit.testing.part_suite import PartSuite


class ScanOrderSuite(PartSuite, ABC):
    """Set ``parts`` to instances, and ``grids`` to grids that all of them support."""

    parts: ClassVar[Sequence[ScanOrder]]
    grids: ClassVar[Sequence[tuple[int, int]]] = ((1, 1), (2, 2), (4, 4), (16, 16))

    def test_it_visits_every_cell_once(self) -> None:
        for part in self.parts:
            for height, width in self.grids:
                _assert_bijection(part, height, width)

    def test_rank_is_the_inverse(self) -> None:
        for part in self.parts:
            for height, width in self.grids:
                steps_L = np.arange(height * width)
                np.testing.assert_array_equal(part.rank(height, width)[part.order(height, width)], steps_L)

    def test_it_gives_the_same_order_every_time(self) -> None:
        for part in self.parts:
            for height, width in self.grids:
                first_L = part.order(height, width)
                kept_L = first_L.copy()
                first_L[:] = 0
                np.testing.assert_array_equal(part.order(height, width), kept_L, "each call must return an array of its own")

    def test_grids_that_it_cannot_serve_are_refused(self) -> None:
        for part in self.parts:
            for height in range(7):
                for width in range(7):
                    if height and width and part.requirement(height, width) is None:
                        _assert_bijection(part, height, width)
                    else:
                        with pytest.raises(GridError, match="grid"):
                            part.order(height, width)


def _assert_bijection(part: ScanOrder, height: int, width: int) -> None:
    order_L = part.order(height, width)
    assert order_L.dtype == np.int64, f"{part!r}: order must be int64, not {order_L.dtype}"
    assert order_L.shape == (height * width,), f"{part!r}: {order_L.shape} for a grid of {height}×{width}"
    # torch.from_numpy refuses negative strides, as of a reversed view; without this check that fails only after training.
    assert order_L.flags.c_contiguous, (
        f"{part!r}: order must be contiguous; return .copy() of a view with strides {order_L.strides}"
    )
    assert sorted(order_L.tolist()) == list(range(height * width)), f"{part!r} on {height}×{width} is not a bijection"
