"""The marks of a metric and its yardsticks on their scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.evaluation.record import MetricRecord
from rarkit.report.yardstick_scale import BREAK, OWN_LABEL, scale

floats = st.floats(-1e9, 1e9) | st.floats(allow_nan=False) | st.sampled_from([math.inf, -math.inf, math.nan])


def metric(value, yardsticks=(), low=None, high=None, better=""):
    named = {f"y{index}": yardstick for index, yardstick in enumerate(yardsticks)}
    return MetricRecord("m", value, low, high, "", better, "", named)


@given(
    floats,
    st.lists(floats, max_size=5) | st.lists(st.floats(0, 1e9), max_size=5),
    st.none() | st.tuples(floats, floats),
    st.sampled_from(["", "higher", "lower"]),
)
def test_all_marks_lie_on_the_scale_in_the_order_of_their_values(value, yardsticks, interval, better):
    low, high = (None, None) if interval is None else sorted(interval)
    shown = scale(metric(value, yardsticks, low, high, better))
    assert sorted(mark.label for mark in shown.marks) == sorted([OWN_LABEL, *(f"y{index}" for index in range(len(yardsticks)))])
    assert [mark.own for mark in shown.marks].count(True) == 1
    on_scale = [mark for mark in shown.marks if mark.percent is not None]  # NaN, which has no place in an order, is not among them.
    percents = [mark.percent for mark in sorted(on_scale, key=lambda mark: mark.value)]
    assert all(0 <= percent <= 100 for percent in percents)
    assert percents == sorted(percents)
    assert all((mark.percent is None) == (not math.isfinite(mark.value)) for mark in shown.marks)
    for mark in shown.marks:
        if mark.interval is not None:
            assert mark.own
            assert 0 <= mark.interval[0] <= mark.interval[1] <= 100
    assert [percent for percent, _ in shown.ticks] == sorted(percent for percent, _ in shown.ticks)
    assert (shown.ticks[0][0], shown.ticks[-1][0]) == (0, 100)


def test_the_best_comes_first_where_a_direction_is_known():
    assert [mark.value for mark in scale(metric(5, [1, math.nan, 9], better="lower")).marks][:3] == [1, 5, 9]
    assert [mark.value for mark in scale(metric(5, [1, math.nan, 9], better="higher")).marks][:3] == [9, 5, 1]
    assert [mark.value for mark in scale(metric(5, [1, 9])).marks] == [5, 1, 9]


def test_a_linear_scale_starts_at_zero_and_holds_the_interval():
    shown = scale(metric(6, [3], low=5, high=12))
    own, real = shown.marks
    assert (own.percent, own.interval, real.percent) == (50, (pytest.approx(100 * 5 / 12), 100), 25)
    assert (shown.kind, shown.ticks) == ("", ((0, "0"), (100, "12")))
    below, above = scale(metric(-1, [1])).marks
    assert (below.percent, above.percent) == (0, 100)
    assert [mark.percent for mark in scale(metric(0, [0])).marks] == [0, 0]


def test_where_one_value_squeezes_the_others_the_scale_is_logarithmic():
    shown = scale(metric(2.9, [2.4, 2.84, 160], low=1.6, high=5.4, better="lower"))
    assert shown.kind == "logarithmic scale"
    assert shown.ticks == ((0, "1"), (100, "200"))
    by_value = {mark.value: mark for mark in shown.marks}
    assert by_value[2.4].percent == pytest.approx(100 * math.log(2.4) / math.log(200))
    assert by_value[2.9].interval == pytest.approx(tuple(100 * math.log(end) / math.log(200) for end in (1.6, 5.4)))
    assert [mark.value for mark in shown.marks] == [2.4, 2.84, 2.9, 160]


def test_a_zero_lies_before_the_break_of_a_logarithmic_scale():
    assert scale(metric(0.002, [0.004, -0.1, 0.9])).kind == ""  # A negative value has no place on a logarithmic scale.
    shown = scale(metric(0.002, [0.004, 0, 0.9]))
    assert shown.kind == "broken logarithmic scale"
    assert shown.ticks == ((0, "0"), (BREAK, "0.002"), (100, "1"))
    assert [mark.percent for mark in shown.marks if mark.value in (0, 0.002)] == [BREAK, 0]


@pytest.mark.parametrize("yardsticks", [[0.986, 0.975, 0.111], [4.85, 1.6, 6], [], [0.05], [math.inf, 1.1]])
def test_scales_that_squeeze_nothing_stay_linear(yardsticks):
    assert scale(metric(0.98, yardsticks)).kind == ""
