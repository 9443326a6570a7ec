"""The plugin meets rarkit's contract of a scan order, and the order is a Hilbert curve."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rarkit
from rarkit.testing import ScanOrderSuite
from rarkit_hilbert import Hilbert


class TestHilbert(ScanOrderSuite):
    parts = (Hilbert(),)
    grids = ((1, 1), (2, 2), (4, 4), (16, 16), (32, 32), (64, 64))


def test_the_installed_plugin_is_found():
    orders = rarkit.parts(strict=True).scan_orders
    assert orders["hilbert"] is Hilbert
    assert orders.source("hilbert").distribution == "rarkit-hilbert"


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_consecutive_cells_are_neighbours(side):
    row, column = np.divmod(Hilbert().order(side, side), side)
    assert (np.abs(np.diff(row)) + np.abs(np.diff(column)) == 1).all()


@pytest.mark.parametrize("side", [4, 8, 16])
def test_each_quadrant_is_finished_before_the_next(side):
    row, column = np.divmod(Hilbert().order(side, side), side)
    quadrant = 2 * (row >= side // 2) + (column >= side // 2)
    assert np.count_nonzero(np.diff(quadrant)) == 3


def test_a_refusal_names_the_grids_that_are_supported():
    for grid in [(3, 3), (4, 8), (6, 6)]:
        with pytest.raises(rarkit.RarkitError, match="power of two"):
            Hilbert().order(*grid)


def test_the_readme_shows_what_it_does():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    [table] = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    part = rarkit.parts().scan_orders["hilbert"](**tomllib.loads(table)["scan_order"])
    [shown] = re.findall(r"--grid 4x4\n(.*?)```", readme, re.DOTALL)
    assert [int(step) for step in shown.split()] == part.rank(4, 4).tolist()


@pytest.mark.parametrize("side", [2, 4, 8])
def test_a_quadrant_is_the_smaller_curve(side):
    """The bottom left quadrant, visited second, is the curve of half the side, not mirrored."""
    rank = Hilbert().rank(2 * side, 2 * side).reshape(2 * side, 2 * side)
    np.testing.assert_array_equal(rank[side:, :side] - side * side, Hilbert().rank(side, side).reshape(side, side))
