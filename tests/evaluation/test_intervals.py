"""Intervals hold their number, cover what they ought to, and are the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.intervals import MadeUp
from rarkit.evaluation.bits_per_token import BitsPerToken
from rarkit.evaluation.diversity import diversity
from rarkit.evaluation.frechet import frechet_between, gaussian
from rarkit.evaluation.inception_score import InceptionScore
from rarkit.evaluation.intervals import _halves, halves_interval, mean_interval, rows_that_count, share_interval
from rarkit.evaluation.metrics import METRICS
from rarkit.report.remarks import remarks

NOMINAL = 0.80, 0.97
"""What an interval of 90 % has to cover."""


@settings(max_examples=15)
@given(
    st.integers(0, 999),
    st.integers(1, 6),
    st.integers(5, 9),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    st.sampled_from([0.0, 2.0]),
)
def test_every_interval_of_every_metric_holds_its_number(seed, classes, per_class, features, spread, moved):
    case = MadeUp("drawn", classes, per_class, features, spread=spread, moved=moved)
    numbers = case.numbers(seed, 6)
    assert {"frechet_distance", "class_agreement", "inception_score", "diversity", "bits_per_token"} <= set(numbers)
    for name, (value, low, high) in numbers.items():
        if low is None:
            # Where few rows count, these have none.
            assert name in ("frechet_distance", "inception_score", "diversity")
            continue
        assert low <= value <= high, (name, low, value, high)


def covered(interval, repeats, truth):
    ends = [interval(np.random.default_rng(seed)) for seed in range(repeats)]
    return np.mean([low <= truth <= high for low, high in ends])


def test_the_interval_of_a_mean_covers_nine_times_in_ten():
    for count in (5, 20, 100):
        assert NOMINAL[0] <= covered(lambda random, n=count: mean_interval(random.gamma(3.0, size=n)), 400, 3.0) <= NOMINAL[1]
    rows = np.random.default_rng(0).normal(size=400)
    low, high = mean_interval(rows)
    assert (high - low, (low + high) / 2) == pytest.approx((2 * 1.645 * rows.std() / 20, rows.mean()), rel=0.01)


@pytest.mark.parametrize("shares", [[0.5], [0.97], [0.99, 0.6, 0.9], [1.0, 0.8, 0.1]])
def test_the_interval_of_a_share_covers_nine_times_in_ten_whatever_the_classes(shares):
    labels = np.arange(len(shares)).repeat(120 // len(shares))

    def interval(random):
        return share_interval(random.random(len(labels)) < np.array(shares)[labels], labels)

    assert NOMINAL[0] <= covered(interval, 400, np.mean(shares)) <= NOMINAL[1]


@given(st.lists(st.booleans(), min_size=5, max_size=30), st.integers(1, 5))
def test_the_interval_of_a_share_is_never_empty(hits, classes):
    hits = np.array(hits)
    low, high = share_interval(hits, np.arange(len(hits)) % classes)
    assert 0 <= low <= hits.mean() <= high <= 1
    assert low < high


REAL = np.random.default_rng(99).normal(size=(400, 6)), np.arange(400) % 4
GAUSSIAN = gaussian(REAL[0])
LABELS = np.repeat(np.arange(4), 8)


@pytest.mark.parametrize(
    ("metric", "scale"),
    [
        (lambda rows, labels: diversity(*REAL, rows, labels), 0.8),
        (lambda rows, labels: frechet_between(GAUSSIAN, gaussian(rows)), 1.0),
        (lambda rows, labels: frechet_between(GAUSSIAN, gaussian(rows)), 0.5),
        (lambda rows, labels: float(rows.mean()), 3.0),
    ],
    ids=["diversity", "Fréchet distance of the same distribution", "Fréchet distance of another", "a mean"],
)
def test_halves_cover_nine_times_in_ten(metric, scale):
    """The bootstrap's interval of the diversity lay below its value, and that of the Fréchet distance above."""

    def samples(random):
        return random.normal(size=(32, 6)) * scale

    truth = np.mean([metric(samples(np.random.default_rng(1000 + seed)), LABELS) for seed in range(300)])
    share = covered(lambda random: halves_interval(metric, [samples(random), LABELS], LABELS, seed=3, splits=6), 100, truth)
    assert NOMINAL[0] <= share <= NOMINAL[1]


@given(st.integers(0, 999), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_halves_have_as_much_of_each_class(seed, counts):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    for first, second in _halves(labels, seed, 3):
        assert sorted([*first, *second]) == list(range(len(labels)))
        assert abs(len(first) - len(second)) <= 1
        parts = [np.bincount(labels[half], minlength=len(counts)) for half in (first, second)]
        assert np.abs(parts[0] - parts[1]).max() <= 1


def test_classes_that_differ_do_not_widen_the_interval():
    """How many samples there are of each class is not left to chance."""
    labels = np.arange(50) % 5
    low, high = halves_interval(lambda rows: float(rows.mean()), [labels * 100.0], labels, seed=0, splits=4)
    assert low == high == 200


def test_the_seed_decides():
    rows, labels = np.random.default_rng(0).normal(size=(2, 20)), np.zeros(20, int)
    one, same, other = (halves_interval(lambda a: float(a.mean()), [rows[0]], labels, seed=seed, splits=5) for seed in (1, 1, 2))
    assert one == same != other


def test_rows_of_all_arrays_stay_together():
    rows = np.random.default_rng(0).normal(size=50)
    both = [rows, rows.copy()]
    interval = halves_interval(lambda a, b: float(np.abs(a - b).max()), both, np.zeros(50, int), seed=0, splits=3)
    assert interval == (0, 0)


def test_there_is_no_interval_where_there_are_too_few_rows():
    rows = np.arange(6.0)
    assert mean_interval(rows[:4]) == (None, None)
    assert share_interval(rows[:4] > 1, np.zeros(4, int)) == (None, None)

    def halves(labels, **settings):
        return halves_interval(lambda a: float(a.mean()), [rows], np.array(labels), seed=0, splits=2, **settings)

    assert halves([0, 0, 0, 0, 0, 1]) == (None, None)
    assert halves([0, 0, 0, 1, 1, 1], per_class=4) == (None, None)
    assert None not in halves([0, 0, 0, 1, 1, 1])


def test_the_inception_score_has_no_interval_where_few_images_decide():
    """Near the number of classes, intervals of 90 % held in 13 to 80 % of cases; the more certain, the less."""
    for separation, least, most in ((0.5, 1.0, 1.0), (1.3, 0.0, 0.1), (2.0, 0.0, 0.05)):
        case = MadeUp("certain", 10, 36, 32, spread=0.9, separation=separation)
        lows = [case.numbers(seed, 2)["inception_score"][1] for seed in range(20)]
        assert least <= sum(low is not None for low in lows) / len(lows) <= most, separation


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(1e-3, 1e6))
def test_rows_count_by_what_they_add(amounts, usual):
    count = rows_that_count(np.array(amounts), usual)
    assert 0 <= count <= len(amounts) * (1 + 1e-9)
    # Rows that add nothing do not count, and none counts for more than one.
    assert rows_that_count(np.array([*amounts, 0.0]), usual) == pytest.approx(count)
    assert rows_that_count(np.array([*amounts, usual * 1e12]), usual) <= 1 + len(amounts) * 1e6 / (usual * 1e12)
    assert rows_that_count(np.full(7, usual), usual) == pytest.approx(7)


def test_where_nearly_all_samples_are_alike_there_is_no_interval_and_it_says_why():
    """Of samples that are all alike but for one in 300, intervals of 90 % held in 60 % of cases."""
    real = MadeUp("real", 10, 36, 8)
    alike = MadeUp("alike", 10, 36, 8, spread=0.01)
    for case, has_one in ((real, True), (alike, False)):
        for own_classes in (True, False):
            records = [
                record for metric in METRICS[:4] for record in metric.measure(case.evaluation(0, 2, own_classes=own_classes))
            ]
            for record in records:
                if record.name in ("diversity", "frechet_distance"):
                    assert (record.low is not None) == has_one, record
                    assert ("alike" in record.no_interval) == (not has_one), record
                assert (record.low is None) == bool(record.no_interval), record
                assert record.to_json()["no_interval"] == record.no_interval
            if not has_one:
                assert any("diversity has no interval from 5 % to 95 %: nearly all" in remark for remark in remarks(records))
    assert all(record.no_interval == "" for metric in METRICS[:4] for record in metric.measure(alike.evaluation(0, 0)))


@pytest.mark.parametrize(("sharpness", "unsure", "has_one"), [(60.0, 0, False), (14.0, 2, False), (14.0, 40, True), (3.0, 0, True)])
def test_the_inception_score_needs_images_that_are_not_certain(sharpness, unsure, has_one):
    """With all certain, only rounding was left to spread: intervals of width 0 that held in a third of cases."""
    case = MadeUp("classes", 10, 36, 4)
    logits = (np.eye(10, dtype=np.float32) * sharpness)[np.repeat(np.arange(10), 36)]
    logits += np.random.default_rng(0).normal(size=logits.shape).astype(np.float32) * 1e-3
    logits[:unsure] = 0
    evaluation = case.evaluation(0, 2, own_classes=False)
    evaluation = replace(evaluation, samples={**evaluation.samples, "logits": logits})
    [record] = InceptionScore().measure(evaluation)
    assert (record.low is not None) == has_one
    assert record.no_interval == ("" if has_one else "nearly all samples are classified with certainty, and the few others decide")


def test_bits_that_are_nearly_all_nothing_have_no_interval():
    evaluation = MadeUp("any", 2, 8, 2).evaluation(0, 2)
    for bits, has_one in ((np.full(80, 0.5), True), (np.r_[np.zeros(79), 9.0], False), (np.full(80, 1e-3), False)):
        tokenized = replace(evaluation.tokenized, nats_per_token=lambda _, bits=bits: bits * np.log(2))
        [record] = BitsPerToken().measure(replace(evaluation, tokenized=tokenized))
        assert (record.low is not None, bool(record.no_interval)) == (has_one, not has_one)


@pytest.mark.parametrize(
    ("shares", "per_class"), [([0.999] * 10, 36), ([0.005] * 10, 36), ([1.0] * 9 + [0.97], 36), ([0.99] * 40, 4)]
)
def test_shares_near_all_and_none_are_covered(shares, per_class):
    """Wilson's intervals hold at the extremes; these are discrete, so they may hold more often than asked."""
    labels = np.arange(len(shares)).repeat(per_class)

    def interval(random):
        return share_interval(random.random(len(labels)) < np.array(shares)[labels], labels)

    assert NOMINAL[0] <= covered(interval, 300, np.mean(shares))


def test_an_interval_does_not_reach_below_what_the_metric_can_be():
    rows = np.array([0.0, 0.0, 0.0, 4.0])
    low, high = halves_interval(lambda a: float(a.mean()), [rows], np.zeros(4, int), seed=0, splits=9, lowest=0.0)
    assert low == 0 < 1 < high
