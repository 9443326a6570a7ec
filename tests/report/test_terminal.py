"""What the terminal shows of scan orders and metrics."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rarkit.report.data import Metric
from rarkit.report.terminal import ARROWS, END, JUMP, metrics_table, scan_order_text
from rarkit.testing.strategies import grids

STEPS = {arrow: step for step, arrow in ARROWS.items()}


def printed(renderable, width=200):
    console = Console(width=width, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


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


def test_metrics_are_shown_with_interval_and_yardsticks():
    metrics = [
        Metric(
            "frechet_distance",
            5.96065,
            4.9517,
            6.99391,
            "",
            "lower",
            "…",
            (("real [b]test[/b] images", 2.4029), ("uniform", 163.8066)),
        ),
        Metric("psnr [dim]", 26.2357, None, None, "dB", "higher", "…", ()),
    ]
    first, second = printed(metrics_table(metrics)).splitlines()[1:]
    for word in ("frechet_distance ↓", "5.961", "4.952 … 6.994", "real [b]test[/b] images 2.403", "uniform 163.8"):
        assert word in first
    for word in ("psnr [dim] ↑", "26.24 dB"):
        assert word in second
