"""Scan orders in the terminal: each cell has its step, or an arrow to where the path goes on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.rendering.scan_order_text import ARROWS, END, JUMP, scan_order_text
from rarkit.testing.strategies import grids

STEPS = {arrow: step for step, arrow in ARROWS.items()}


@settings(max_examples=60, deadline=None)
@given(grids(16), st.integers(0, 2**32 - 1))
def test_each_rank_stands_once_in_its_cell(grid, seed):
    height, width = grid
    order = np.random.default_rng(seed).permutation(height * width)
    lines = scan_order_text(order, height, width).plain.split("\n")
    ranks = np.array([[int(rank) for rank in line.split()] for line in lines])
    assert ranks.shape == (height, width)
    np.testing.assert_array_equal(ranks.ravel()[order], np.arange(height * width))
    assert len({len(line) for line in lines}) == 1, "columns are aligned"


@settings(max_examples=60, deadline=None)
@given(grids(16), st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_arrows_lead_along_the_path_where_numbers_do_not_fit(grid, seed, columns):
    height, width = grid
    random = np.random.default_rng(seed)
    order = np.arange(height * width) if seed % 2 else random.permutation(height * width)
    digits = len(str(order.size - 1))
    text = scan_order_text(order, height, width, columns=columns).plain.split("\n")
    if width * (digits + 1) - 1 <= columns:
        assert "\n".join(text) == scan_order_text(order, height, width).plain
        return
    lines, notes = text[:height], text[height:]
    shown = min(width, max(1, (columns + 1) // 2))
    assert all(len(line) == 2 * shown - 1 <= max(columns, 1) for line in lines)
    assert len(notes) == (1 if shown == width else 2)
    signs = [line.split() for line in lines]
    for here, there in pairwise(order):
        (row, column), (next_row, next_column) = divmod(int(here), width), divmod(int(there), width)
        if column < shown:
            sign = signs[row][column]
            away = max(abs(next_row - row), abs(next_column - column))
            assert (sign == JUMP) == (away > 1)
            assert sign == JUMP or STEPS[sign] == (next_row - row, next_column - column)
    row, column = divmod(int(order[-1]), width)
    assert column >= shown or signs[row][column] == END


def test_cells_are_coloured_along_the_way():
    spans = scan_order_text(np.arange(16), 4, 4).spans
    assert len({str(span.style) for span in spans}) == 16
