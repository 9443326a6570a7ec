"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.rendering.numbers import duration, number, words


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


def test_metrics_are_written_as_people_write_them():
    written = [words(name) for name in ("reconstruction_psnr", "frechet_distance", "fid", "bits_per_token")]
    assert written == ["reconstruction PSNR", "Fréchet distance", "FID", "bits per token"]
