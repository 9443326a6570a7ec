"""Numbers for people, and the place of a metric among its yardsticks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.report.data import Metric
from rarkit.rendering.numbers import duration, number
from rarkit.report.yardstick_scale import OWN, places

floats = st.floats(-1e9, 1e9) | st.floats(allow_nan=False) | st.sampled_from([math.inf, -math.inf, math.nan])


def metric(value, yardsticks=(), low=None, high=None, better=""):
    named = tuple((f"y{index}", yardstick) for index, yardstick in enumerate(yardsticks))
    return Metric("m", value, low, high, "", better, "", named)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (1.0, "1"),
        (0.0974930, "0.09749"),
        (163.80658, "163.8"),
        (16384.2, "16,384"),
        (2.5e7, "2.5e+07"),
        (-2.5, "-2.5"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@given(st.floats(-1e12, 1e12))
def test_numbers_are_right_to_four_figures(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.1e-4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (11_220, "3 h 07 min"),
        (86_399, "1 d 00 h"),
        (187_200, "2 d 04 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(st.lists(st.floats(0, 1e7), min_size=2, max_size=2).map(sorted))
def test_longer_durations_never_look_shorter(pair):
    units = {"s": 1, "min": 60, "h": 3600, "d": 86_400}

    def back(text):
        words = text.split()
        return sum(float(amount) * units[unit] for amount, unit in zip(words[::2], words[1::2], strict=True))

    long_text = duration(pair[1])
    short, long = back(duration(pair[0])), back(long_text)
    assert short <= long
    smaller = units[long_text.split()[-1]] if pair[1] >= 9.95 else 0.1
    assert abs(long - pair[1]) <= 0.501 * smaller


@given(floats, st.lists(floats, max_size=5), st.none() | st.tuples(floats, floats), st.sampled_from(["", "higher", "lower"]))
def test_all_places_lie_on_the_scale_in_the_order_of_their_values(value, yardsticks, interval, better):
    low, high = (None, None) if interval is None else sorted(interval)
    found = places(metric(value, yardsticks, low, high, better))
    assert sorted(place.label for place in found) == sorted([OWN, *(f"y{index}" for index in range(len(yardsticks)))])
    assert [place.own for place in found].count(True) == 1
    shown = sorted((place.value, place.share) for place in found if place.share is not None)
    assert all(0 <= share <= 100 for _, share in shown)
    assert [share for _, share in shown] == sorted(share for _, share in shown)
    assert all((place.share is None) == (not math.isfinite(place.value)) for place in found)
    for place in found:
        if place.band is not None:
            assert place.own
            assert 0 <= place.band[0] <= place.band[1] <= 100


def test_the_best_comes_first_where_a_direction_is_known():
    assert [place.value for place in places(metric(5, [1, math.nan, 9], better="lower"))][:3] == [1, 5, 9]
    assert [place.value for place in places(metric(5, [1, math.nan, 9], better="higher"))][:3] == [9, 5, 1]
    assert [place.value for place in places(metric(5, [1, 9]))] == [5, 1, 9]


def test_the_scale_starts_at_zero_and_holds_the_interval():
    own, real = places(metric(6, [3], low=5, high=12))
    assert (own.share, own.band, real.share) == (50, (pytest.approx(100 * 5 / 12), 100), 25)
    below, above = places(metric(-1, [1]))
    assert (below.share, above.share) == (0, 100)
    assert [place.share for place in places(metric(0, [0]))] == [0, 0]
