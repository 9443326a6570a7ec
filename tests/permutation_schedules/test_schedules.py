"""Permutation schedules and the draws they decide."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

import rarkit
from rarkit.permutation_schedules.constant import Constant
from rarkit.permutation_schedules.cosine import Cosine
from rarkit.permutation_schedules.draw import draw_orders
from rarkit.permutation_schedules.linear import Linear
from rarkit.permutation_schedules.step import Step
from rarkit.testing import PermutationScheduleSuite, orders

RELEASED = json.loads((Path(__file__).parents[1] / "data/parity/schedules.json").read_text())["random_ratio"]


class TestFalling(PermutationScheduleSuite):
    parts = (Constant(), Constant(ratio=0.3), Linear(), Cosine(), Linear(start=3, end=9), Step(), Step(points=(5,), ratios=(1, 0)))
    falls = True


class TestRising(PermutationScheduleSuite):
    parts = (Step(points=(0.5,), ratios=(0.1, 0.9)),)


def test_the_list_is_complete():
    schedules = rarkit.parts().permutation_schedules
    ours = {name for name in schedules if schedules.source(name).distribution == "rarkit"}
    assert ours == {part.name for part in TestFalling.parts}


def test_linear_is_the_released_annealing():
    schedule = Linear(start=RELEASED["start"], end=RELEASED["end"])
    for step, ratio in RELEASED["values"]:
        assert schedule.random_ratio(step, 250_000) == pytest.approx(ratio, abs=1e-12)
        assert Linear(start=0.5, end=0.75).random_ratio(step, 250_000) == pytest.approx(ratio, abs=1e-12)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 1000))
def test_annealing_begins_at_one_and_ends_at_zero(one, two, total):
    start, end = sorted((one, two))
    for schedule in (Linear(start=start, end=end), Cosine(start=start, end=end)):
        for step in range(total + 1):
            ratio = schedule.random_ratio(step, total)
            if step < start * total:
                assert ratio == 1
            if step >= end * total:
                assert ratio == pytest.approx(0, abs=1e-12)


def test_cosine_is_half_way_in_the_middle_and_flat_at_the_ends():
    schedule = Cosine(start=0, end=1000)
    assert schedule.random_ratio(500, 1000) == pytest.approx(0.5)
    assert schedule.random_ratio(100, 1000) > Linear(start=0, end=1000).random_ratio(100, 1000)


def test_step_changes_at_its_points():
    schedule = Step(points=(10, 20), ratios=(1.0, 0.5, 0.25))
    assert [schedule.random_ratio(step, 30) for step in (0, 9, 10, 19, 20, 30)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_whole_numbers_are_steps_and_others_fractions():
    assert Linear(start=0, end=1).random_ratio(1, 100) == 0
    assert Linear(start=0.0, end=1.0).random_ratio(50, 100) == 0.5


def test_what_is_written_in_toml_decides():
    start, end = tomllib.loads("points = [1, 1.0]")["points"]
    assert type(Linear(start=start, end=5).start) is int
    assert type(Linear(start=end, end=end).start) is float
    # A fingerprint must tell step 1 from the whole training.
    said = [json.dumps(Linear(start=point, end=point).identity()) for point in (start, end)]
    assert said[0] != said[1]


def test_a_step_beyond_the_end_is_never_reached():
    for schedule in (Linear(start=125_000, end=187_500), Cosine(start=125_000, end=187_500), Step(points=(900,), ratios=(1, 0))):
        assert {schedule.random_ratio(step, 20) for step in range(21)} == {1.0}


@pytest.mark.parametrize("point", [5, 0.25])
def test_annealing_at_one_point_is_a_jump(point):
    for schedule in (Linear(start=point, end=point), Cosine(start=point, end=point)):
        ratios = [schedule.random_ratio(step, 20) for step in range(21)]
        assert ratios == pytest.approx([1.0] * 5 + [0.0] * 16)


def test_cosine_is_a_cosine():
    """Between two points it solves r'' = -(π / width)² (r - ½): checked by second differences, exact for a cosine."""
    ratios = np.array([Cosine(start=10, end=90).random_ratio(step, 100) for step in range(10, 91)])
    middle = ratios[1:-1] - 0.5
    np.testing.assert_allclose(np.diff(ratios, 2), 2 * (np.cos(np.pi / 80) - 1) * middle, atol=1e-14)


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        (Linear, {"start": 0.5, "end": 100}, "both as steps"),
        (Cosine, {"start": 0.9, "end": 0.2}, "is after"),
        (Linear, {"start": -1, "end": 5}, "greater than or equal to 0"),
        (Linear, {"start": 0.5, "end": 1.5}, "less than or equal to 1"),
        (Linear, {"start": float("nan"), "end": 1.0}, "finite number"),
        (Linear, {"start": 0.0, "end": True}, "should be a valid"),
        (Linear, {"start": "0.5", "end": 1.0}, "should be a valid"),
        (Constant, {"ratio": 1.5}, "less than or equal to 1"),
        (Step, {"points": [0.5], "ratios": [1.0]}, "2 parts"),
        (Step, {"points": [0.5, 0.2], "ratios": [1, 0.5, 0]}, "not in ascending order"),
        (Step, {"points": [3, 3], "ratios": [1, 0.5, 0]}, "not in ascending order"),
        (Step, {"points": [0.5, 7], "ratios": [1, 0.5, 0]}, "all as steps"),
    ],
)
def test_nonsense_is_refused(part, settings, message):
    with pytest.raises(ValidationError, match=message):
        part(**settings)


@given(orders(6), st.floats(0, 1), st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 20), st.data())
def test_rows_are_permutations_whatever_the_batch_split(order, ratio, seed, step, batch, data):
    whole = draw_orders(order, ratio, seed=seed, step=step, indices=range(batch))
    assert whole.dtype == np.int64
    np.testing.assert_array_equal(np.sort(whole, axis=1), np.tile(np.arange(6), (batch, 1)))
    cut = data.draw(st.integers(0, batch))
    parts = [draw_orders(order, ratio, seed=seed, step=step, indices=part) for part in (range(cut), range(cut, batch))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_share_of_random_permutations_is_the_ratio(ratio):
    scan = np.arange(16)
    drawn = np.concatenate([draw_orders(scan, ratio, seed=3, step=step, indices=range(500)) for step in range(8)])
    count = int((drawn != scan).any(1).sum())
    # A random permutation of 16 is the scan order once in 2 · 10¹³.
    assert stats.binomtest(count, len(drawn), ratio).pvalue > 1e-3 if 0 < ratio < 1 else count == ratio * len(drawn)


def test_which_rows_are_random_does_not_depend_on_the_scan_order():
    """So that two recipes that differ in their order alone see the same permutations."""
    forwards = draw_orders(np.arange(16), 0.5, seed=3, step=1, indices=range(64))
    backwards = draw_orders(np.arange(16)[::-1], 0.5, seed=3, step=1, indices=range(64))
    kept = (forwards == np.arange(16)).all(1)
    np.testing.assert_array_equal(forwards[~kept], backwards[~kept])
    np.testing.assert_array_equal(backwards[kept], forwards[kept][:, ::-1])


def test_a_larger_ratio_adds_random_rows_and_changes_none():
    rows = [draw_orders(np.arange(16), ratio, seed=3, step=1, indices=range(200)) for ratio in (0.3, 0.6)]
    few, more = ((drawn != np.arange(16)).any(1) for drawn in rows)
    assert few.sum() < more.sum()
    assert (few <= more).all()
    np.testing.assert_array_equal(rows[0][few], rows[1][few])


def test_random_permutations_are_uniform():
    drawn = draw_orders(np.arange(4), 1.0, seed=5, step=9, indices=range(24_000))
    counts = np.unique(drawn @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_steps_and_seeds_draw_anew():
    drawn = [draw_orders(np.arange(9), 1.0, seed=seed, step=step, indices=range(50)) for seed, step in [(1, 1), (1, 2), (2, 1)]]
    assert (drawn[0] != drawn[1]).any(1).mean() > 0.99
    assert (drawn[0] != drawn[2]).any(1).mean() > 0.99
