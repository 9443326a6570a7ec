"""Charts: the geometry of axes and lines for whatever numbers come, and what a reader finds in them."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.rendering.axes import HUGE, TINY, axis
from rarkit.rendering.charts import (
    BORDER,
    BOTTOM,
    CELL,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    line_chart,
    point_runs,
    scan_chart,
    thinned,
)
from rarkit.rendering.figures import Curve, Scan, Series
from rarkit.rendering.numbers import tick_labels
from rarkit.testing.strategies import grids

anything = st.floats() | st.floats(-1e30, 1e30) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-300, 5e-324])
values = st.lists(anything, max_size=60).map(np.array)


class Shapes(HTMLParser):
    """Collects tags with their attributes, and the texts."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(markup)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def points(self):
        """Pixels of all that is data."""
        for tag, attrs in self.tags:
            if tag == "polyline":
                yield from (tuple(map(float, point.split(","))) for point in attrs["points"].split())
            elif tag == "circle":
                yield float(attrs["cx"]), float(attrs["cy"])


def chart(*series, **more):
    return Shapes(line_chart(Curve("Loss", "step", "bits", tuple(Series(*one) for one in series), **more)))


@settings(max_examples=150, deadline=None)
@given(st.lists(values, max_size=3), st.booleans())
def test_all_points_lie_within_the_axes(lines, log_y):
    shapes = chart(*((f"{i}", np.arange(len(y)), y) for i, y in enumerate(lines)), log_y=log_y)
    for x, y in shapes.points():
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM
    for tag, attrs in shapes.tags:
        for name in ("x", "x1", "x2", "y", "y1", "y2"):
            if name in attrs:
                assert 0 <= float(attrs[name]) <= (WIDTH if name[0] == "x" else HEIGHT), (tag, attrs)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-HUGE, HUGE), min_size=2, max_size=50), st.booleans())
def test_greater_values_lie_higher(ys, log_y):
    y = np.sort(np.array(ys))
    shown = y[y >= TINY] if log_y and (y >= TINY).any() else y
    points = list(chart(("a", np.arange(len(y)), y), log_y=log_y).points())
    assert len(points) == len(shown)
    assert all(x1 < x2 and y1 >= y2 for (x1, y1), (x2, y2) in itertools.pairwise(points))
    if shown[-1] - shown[0] > 1e-6 * max(np.abs(shown).max(), 1e-280):
        assert points[0][1] == HEIGHT - BOTTOM
        assert points[-1][1] == TOP


def test_a_linear_axis_is_linear_and_a_logarithmic_one_logarithmic():
    linear = axis(np.array([2.0, 10.0]), 100, 500)
    assert [linear.at(value) for value in (2, 4, 6, 10)] == [100, 200, 300, 500]
    log = axis(np.array([1.0, 10_000.0, -3.0]), 0, 400, log=True)
    np.testing.assert_allclose([log.at(value) for value in (1, 10, 100, 1000, 10_000)], [0, 100, 200, 300, 400])
    assert np.isnan(log.at(0.0))
    assert log.ticks() == [1, 10, 100, 1000, 10_000]


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e293, 1e293), st.floats(1e-6, 1e6), st.booleans())
def test_ticks_rise_within_the_axis_and_their_labels_tell_them_apart(low, share, log):
    high = low + share * max(abs(low), 1e-12)
    found = axis(np.array([low, high]), 0, 100, log=log)
    ticks = found.ticks()
    assert 2 <= len(ticks) <= 9
    room = 1e-6 * (found.high - found.low)
    assert found.low - room <= ticks[0]
    assert ticks[-1] <= found.high + room
    assert all(a < b for a, b in itertools.pairwise(ticks))
    if share > 1e-4:
        assert len(set(tick_labels(ticks))) == len(ticks), tick_labels(ticks)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([], []),
        ([0.0], ["0"]),
        ([0, 0.1 + 0.2, 0.6], ["0", "0.3", "0.6"]),
        ([-0.5, 0, 0.5], ["−0.5", "0", "0.5"]),
        ([0, 2000, 4000], ["0", "2000", "4000"]),
        ([0, 5000, 10000], ["0", "5k", "10k"]),
        ([0, 250_000, 500_000], ["0", "250k", "500k"]),
        ([1e6, 1.5e6, 2e6], ["1.0M", "1.5M", "2.0M"]),
        ([100_000, 100_001, 100_002], ["100000", "100001", "100002"]),
        ([0, 1e-4, 2e-4], ["0", "1e−4", "2e−4"]),
        ([0, 5e-5, 1e-4], ["0", "0.5e−4", "1.0e−4"]),
        ([1e-6, 1e-5, 1e-4], ["1e−6", "1e−5", "1e−4"]),
        ([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"]),
    ],
)
def test_labels_of_ticks(ticks, labels):
    assert tick_labels(ticks) == labels


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1200, 6000), st.floats(0, 0.5))
def test_thinning_loses_no_extreme_of_any_column(seed, count, missing):
    random = np.random.default_rng(seed)
    x, y = np.arange(count), random.standard_cauchy(count)
    y[random.random(count) < missing] = np.nan
    x_axis = axis(x, LEFT, WIDTH - RIGHT)
    thin_x, thin_y = thinned(Series("a", x, y), x_axis)
    columns, thin_columns = (np.floor([x_axis.at(value) for value in xs]) for xs in (x, thin_x))
    assert len(thin_x) <= 4 * WIDTH
    assert (np.diff(thin_x) > 0).all()
    for column in np.unique(columns):
        all_y, kept_y = y[columns == column], thin_y[thin_columns == column]
        if np.isfinite(all_y).any():
            assert (np.nanmin(all_y), np.nanmax(all_y)) == (np.nanmin(kept_y), np.nanmax(kept_y))
    np.testing.assert_array_equal(y[thin_x.astype(int)], thin_y)


def test_a_long_line_becomes_a_short_file():
    count = 200_000
    assert len(line_chart(Curve("t", "x", "y", (Series("a", np.arange(count), np.sin(np.arange(count))),)))) < 60_000


def test_missing_values_cut_the_line_and_lone_points_are_dots():
    y = np.array([1, 2, np.nan, 3, np.nan, np.inf, 4, 5, 6])
    shapes = chart(("a", np.arange(9), y))
    assert [len(attrs["points"].split()) for tag, attrs in shapes.tags if tag == "polyline"] == [2, 3]
    assert sum(tag == "circle" for tag, _ in shapes.tags) == 1
    runs = point_runs(Series("a", np.arange(9), y), axis(np.arange(9), 0, 8), axis(y, 0, 5))
    assert runs == [[(0, 0), (1, 1)], [(3, 2)], [(6, 3), (7, 4), (8, 5)]]


@pytest.mark.parametrize("series", [(), (("a", np.zeros(0), np.zeros(0)),), (("a", np.arange(3), np.full(3, np.nan)),)])
def test_a_chart_of_nothing_says_so(series):
    assert "nothing to show" in chart(*series).texts


def test_a_constant_line_runs_through_the_middle():
    points = list(chart(("a", np.arange(3), np.full(3, 7.0))).points())
    assert {y for _, y in points} == {(TOP + HEIGHT - BOTTOM) / 2}


@pytest.mark.parametrize(
    ("value", "log", "ends"),
    [(4.0, False, (0, 8)), (-4.0, False, (-8, 0)), (0.0, False, (0, 1)), (1e-300, False, (0, 1)), (4.0, True, (2, 6))],
)
def test_one_value_alone_has_zero_in_sight_and_nothing_beyond(value, log, ends):
    found = axis(np.full(3, value), 0, 100, log=log)
    assert (found.low, found.high, found.log) == (*ends, log)


def test_several_lines_have_a_legend_and_different_colours():
    one = ("a", np.arange(3), np.arange(3))
    assert not any(tag == "ul" for tag, _ in chart(one).tags)
    shapes = chart(("each <step>", *one[1:], True), ("mean", *one[1:]), ("other", *one[1:]))
    assert [text for text in shapes.texts if text in ("each <step>", "mean", "other")] == ["each <step>", "mean", "other"]
    lines = [attrs["class"] for tag, attrs in shapes.tags if tag == "polyline"]
    swatches = [attrs["class"] for tag, attrs in shapes.tags if tag == "span"]
    assert lines == ["line faint", "line hue0", "line hue1"]
    assert swatches == ["swatch faint", "swatch hue0", "swatch hue1"]


def test_labels_are_escaped_and_read_aloud():
    shapes = Shapes(line_chart(Curve('<b>"t"', "<x>", "<y>", (Series("a", np.arange(3), np.arange(3)),))))
    (svg,) = (attrs for tag, attrs in shapes.tags if tag == "svg")
    assert svg["aria-label"] == '<b>"t": <y> over <x>'
    assert {"<x>", "<y>"} <= set(shapes.texts)
    assert not {"b", "x", "y"} & {tag for tag, _ in shapes.tags}


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(0, 2**32 - 1))
def test_a_scan_chart_draws_each_move_once(grid, seed):
    height, width = grid
    order = np.random.default_rng(seed).permutation(height * width)
    shapes = Shapes(scan_chart(Scan("mine", order, height, width)))
    moves = {}
    for tag, attrs in shapes.tags:
        if tag == "path" and attrs["class"] in ("path", "jump"):
            for found in re.findall(r"M(\d+) (\d+)L(\d+) (\d+)", attrs["d"]):
                ends = [(int(value) - BORDER) // CELL for value in found]
                moves[ends[1] * width + ends[0], ends[3] * width + ends[2]] = attrs["class"]
    assert set(moves) == set(itertools.pairwise(order.tolist()))
    for (here, there), kind in moves.items():
        (row, column), (next_row, next_column) = divmod(here, width), divmod(there, width)
        assert (kind == "path") == (max(abs(row - next_row), abs(column - next_column)) == 1)
    numbers = [text for text in shapes.texts if text.isdigit()]
    assert sorted(map(int, numbers)) == (list(range(len(order))) if len(order) <= 100 else [])
