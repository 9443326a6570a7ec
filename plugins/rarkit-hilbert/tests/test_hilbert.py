"""The Hilbert curve keeps what rarkit expects of a scan order, and what makes it a Hilbert curve."""

from __future__ import annotations

import numpy as np
import pytest

import rarkit
from rarkit.testing import ScanOrderSuite
from rarkit_hilbert import Hilbert


class TestHilbert(ScanOrderSuite):
    parts = (Hilbert(),)
    grids = ((1, 1), (2, 2), (4, 4), (16, 16), (32, 32))


def test_the_installed_plugin_is_found():
    orders = rarkit.registry(strict=True).scan_orders
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


def test_other_grids_are_refused_with_those_that_are_served():
    for grid in [(3, 3), (4, 8), (6, 6)]:
        with pytest.raises(rarkit.RarkitError, match="power of two"):
            Hilbert().order(*grid)
