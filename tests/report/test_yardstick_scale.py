"""The marks of a metric and its yardsticks on their scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.evaluation.record import MetricRecord
from rarkit.report.yardstick_scale import OWN_LABEL, marks

floats = st.floats(-1e9, 1e9) | st.floats(allow_nan=False) | st.sampled_from([math.inf, -math.inf, math.nan])


def metric(value, yardsticks=(), low=None, high=None, better=""):
    named = {f"y{index}": yardstick for index, yardstick in enumerate(yardsticks)}
    return MetricRecord("m", value, low, high, "", better, "", named)


@given(floats, st.lists(floats, max_size=5), st.none() | st.tuples(floats, floats), st.sampled_from(["", "higher", "lower"]))
def test_all_marks_lie_on_the_scale_in_the_order_of_their_values(value, yardsticks, interval, better):
    low, high = (None, None) if interval is None else sorted(interval)
    shown = marks(metric(value, yardsticks, low, high, better))
    assert sorted(mark.label for mark in shown) == sorted([OWN_LABEL, *(f"y{index}" for index in range(len(yardsticks)))])
    assert [mark.own for mark in shown].count(True) == 1
    on_scale = [mark for mark in shown if mark.percent is not None]  # NaN, which has no place in an order, is not among them.
    percents = [mark.percent for mark in sorted(on_scale, key=lambda mark: mark.value)]
    assert all(0 <= percent <= 100 for percent in percents)
    assert percents == sorted(percents)
    assert all((mark.percent is None) == (not math.isfinite(mark.value)) for mark in shown)
    for mark in shown:
        if mark.interval is not None:
            assert mark.own
            assert 0 <= mark.interval[0] <= mark.interval[1] <= 100


def test_the_best_comes_first_where_a_direction_is_known():
    assert [mark.value for mark in marks(metric(5, [1, math.nan, 9], better="lower"))][:3] == [1, 5, 9]
    assert [mark.value for mark in marks(metric(5, [1, math.nan, 9], better="higher"))][:3] == [9, 5, 1]
    assert [mark.value for mark in marks(metric(5, [1, 9]))] == [5, 1, 9]


def test_the_scale_starts_at_zero_and_holds_the_interval():
    own, real = marks(metric(6, [3], low=5, high=12))
    assert (own.percent, own.interval, real.percent) == (50, (pytest.approx(100 * 5 / 12), 100), 25)
    below, above = marks(metric(-1, [1]))
    assert (below.percent, above.percent) == (0, 100)
    assert [mark.percent for mark in marks(metric(0, [0]))] == [0, 0]
