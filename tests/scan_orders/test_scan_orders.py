"""Scan orders are bijections, the paper's are the paper's, and grids that cannot be served are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rarkit
from rarkit import scan_orders
from rarkit.errors import GridError
from rarkit.scan_orders.alternate import Alternate
from rarkit.scan_orders.raster import Raster
from rarkit.scan_orders.spiral import Spiral
from rarkit.scan_orders.subsample import Subsample
from rarkit.scan_orders.z_curve import ZCurve
from rarkit.scan_orders.zigzag import Zigzag
from rarkit.testing import ScanOrderSuite, grids

FIGURE_6 = json.loads((Path(__file__).parents[1] / "data/parity/scan_orders_16x16.json").read_text())["orders"]
PAPER = {
    "row_major": Raster(),
    "spiral_in": Spiral(),
    "spiral_out": Spiral(direction="outward"),
    "z_curve": ZCurve(),
    "subsample": Subsample(),
    "alternate": Alternate(),
}
EVERY_GRID = [Raster(), Spiral(), Spiral(direction="outward"), Zigzag(), Alternate()]


class TestConformance(ScanOrderSuite):
    parts = (*EVERY_GRID, Subsample(), ZCurve())
    grids = ((2, 2), (4, 4), (16, 16))


def test_the_list_is_complete():
    orders = rarkit.parts().scan_orders
    ours = {name for name in orders if orders.source(name).distribution == "rarkit"}
    assert ours == {part.name for part in TestConformance.parts}
    assert ours | {"base"} == {path.stem for path in Path(scan_orders.__path__[0]).glob("*.py")} - {"__init__"}
    assert FIGURE_6.keys() == PAPER.keys()


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_orders_equal_figure_6(name):
    np.testing.assert_array_equal(PAPER[name].rank(16, 16).reshape(16, 16), FIGURE_6[name])


@given(grids())
def test_every_grid_is_served_by_the_orders_that_say_so(grid):
    for order in EVERY_GRID:
        np.testing.assert_array_equal(np.sort(order.order(*grid)), np.arange(grid[0] * grid[1]))


@given(grids())
def test_spiral_and_alternate_go_from_neighbour_to_neighbour(grid):
    for order in (Spiral(), Spiral(direction="outward"), Alternate()):
        row, column = np.divmod(order.order(*grid), grid[1])
        assert (np.abs(np.diff(row)) + np.abs(np.diff(column)) == 1).all()


@given(grids())
def test_a_spiral_goes_around_before_it_goes_in(grid):
    height, width = grid
    row, column = np.divmod(Spiral().order(height, width), width)
    ring = np.minimum.reduce([row, column, height - 1 - row, width - 1 - column])
    assert (np.diff(ring) >= 0).all()
    np.testing.assert_array_equal(Spiral(direction="outward").order(height, width), Spiral().order(height, width)[::-1])


@given(grids())
def test_zigzag_goes_along_anti_diagonals_in_turns(grid):
    row, column = np.divmod(Zigzag().order(*grid), grid[1])
    diagonal = row + column
    assert (np.diff(diagonal) >= 0).all()
    for number in range(diagonal[-1] + 1):
        rising = np.diff(row[diagonal == number])
        assert (rising == (1 if number % 2 else -1)).all()


def test_zigzag_is_jpeg_s():
    # ITU-T T.81, figure A.6, first rows.
    assert Zigzag().rank(8, 8).reshape(8, 8)[:2].tolist() == [[0, 1, 5, 6, 14, 15, 27, 28], [2, 4, 7, 13, 16, 26, 29, 42]]


@given(st.integers(0, 5), st.data())
def test_the_z_curve_interleaves_the_digits_of_row_and_column(digits, data):
    side = 2**digits
    row, column = data.draw(st.integers(0, side - 1)), data.draw(st.integers(0, side - 1))
    pairs = zip(f"{row:0{digits}b}", f"{column:0{digits}b}", strict=True) if digits else [("0", "0")]
    assert ZCurve().rank(side, side)[row * side + column] == int("".join(r + c for r, c in pairs), 2)


@given(grids(8), st.data())
def test_subsample_takes_the_quadrants_in_turn(half, data):
    height, width = 2 * half[0], 2 * half[1]
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    quadrant = 2 * (row >= half[0]) + (column >= half[1])
    within = (row % half[0]) * half[1] + column % half[1]
    assert Subsample().rank(height, width)[row * width + column] == 4 * within + quadrant


@pytest.mark.parametrize(("order", "grid"), [(ZCurve(), (3, 3)), (ZCurve(), (4, 8)), (Subsample(), (3, 4)), (Subsample(), (4, 3))])
def test_a_refusal_says_which_grids_are_served(order, grid):
    with pytest.raises(GridError, match=rf"{order.name}.*{grid[0]}×{grid[1]}: it needs"):
        order.order(*grid)
