"""Random numbers are Philox4x32-10, and a function of (seed, purpose, step, index) alone."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rarkit import randomness
from rarkit.randomness import derived_seed, drawn_rows, philox, random_bits, uniforms

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key, expected):
    words = philox(tuple(np.array([word], dtype=np.uint64) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == expected


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**32 - 1), max_size=6),
    st.integers(0, 9),
    st.data(),
)
def test_a_row_depends_on_its_index_alone(seed, step, indices, count, data):
    whole = random_bits(seed, "x", step, indices, count)
    assert whole.shape == (len(indices), count)
    cut = data.draw(st.integers(0, len(indices)))
    parts = [random_bits(seed, "x", step, part, count) for part in (indices[:cut], indices[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(random_bits(seed, "x", step, indices, count + 3)[:, :count], whole)


def test_seed_purpose_step_and_index_all_count():
    base = (1, "a", 2, [3], 4)
    first = random_bits(*base)
    for other in [(2, "a", 2, [3], 4), (1, "b", 2, [3], 4), (1, "a", 3, [3], 4), (1, "a", 2, [4], 4), (1 + 2**40, "a", 2, [3], 4)]:
        assert not (random_bits(*other) == first).any()


def test_a_row_is_the_generator_s_words_in_order():
    """Counter (block, index, step, purpose), key the seed's halves; two words make one number, the first above the second."""
    drawn = [int(number) for number in random_bits(0x1234567890ABCDEF, "noise", 7, [9], 5)[0]]
    words = []
    for block in range(3):
        counter = tuple(np.array([part], dtype=np.uint64) for part in (block, 9, 7, zlib.crc32(b"noise")))
        words += [int(word[0]) for word in philox(counter, (0x90ABCDEF, 0x12345678))]
    assert drawn == [high * 2**32 + low for high, low in zip(words[::2], words[1::2], strict=True)][:5]


def test_the_low_64_bits_of_a_seed_count():
    np.testing.assert_array_equal(random_bits(-1, "a", 0, [5], 3), random_bits(2**64 - 1, "a", 0, [5], 3))
    np.testing.assert_array_equal(random_bits(7 + 2**64, "a", 0, [5], 3), random_bits(7, "a", 0, [5], 3))


def test_each_of_the_64_bits_is_fair():
    drawn = random_bits(11, "test", 4, range(500), 40).ravel()
    ones = [int((drawn >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(64)]
    # 64 tests at once: each at a level of one in a million.
    assert min(stats.binomtest(count, drawn.size).pvalue for count in ones) > 1e-6


def test_uniforms_are_the_upper_bits():
    bits = random_bits(3, "a", 2, range(20), 6)
    drawn = uniforms(3, "a", 2, range(20), 6)
    assert drawn.dtype == np.float64
    assert [int(number * 2**53) for number in drawn.ravel()] == [int(number) >> 11 for number in bits.ravel()]


def test_uniforms_are_uniform_and_uncorrelated():
    drawn = uniforms(7, "test", 0, range(2000), 50)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.08
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.08


def test_derived_seeds_fit_every_library():
    seeds = {derived_seed(seed, purpose, step) for seed in range(5) for purpose in "abc" for step in range(5)}
    assert len(seeds) == 75
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.integers(0, 2**63), st.integers(0, 200), st.integers(1, 60), st.integers(1, 60))
def test_drawn_rows_are_ascending_distinct_and_nested(seed, count, some, more):
    rows = drawn_rows(seed, count, some + more)
    assert rows.dtype == np.int64
    assert len(rows) == min(count, some + more)
    assert set(rows) <= set(range(count))
    assert (np.diff(rows) > 0).all()
    assert set(drawn_rows(seed, count, some)) <= set(rows)


def test_every_row_is_drawn_as_often():
    counts = np.bincount(np.concatenate([drawn_rows(seed, 30, 10) for seed in range(600)]), minlength=30)
    # Draws without replacement vary less than independent ones.
    assert stats.chisquare(counts).pvalue > 1e-3


def test_rows_are_drawn_the_same_in_pieces(monkeypatch):
    whole = drawn_rows(3, 1000, 100)
    monkeypatch.setattr(randomness, "_DRAWN_AT_ONCE", 64)
    np.testing.assert_array_equal(drawn_rows(3, 1000, 100), whole)
