"""Intervals: the same for the same seed, as wide as theory says, and covering what they ought to."""

from __future__ import annotations

import numpy as np
import pytest

from rarkit.evaluation.bootstrap import bootstrap
from rarkit.evaluation.frechet import frechet_distance


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    rows = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap(np.mean, [rows], seed=0, resamplings=2000)
    width = 2 * 1.645 * rows.std() / np.sqrt(len(rows))
    assert high - low == pytest.approx(width, rel=0.1)
    assert (low + high) / 2 == pytest.approx(rows.mean(), abs=width / 10)


def test_it_covers_the_truth_nine_times_in_ten():
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(150):
        low, high = bootstrap(np.mean, [random.normal(size=60)], seed=seed)
        covered += low <= 0 <= high
    assert 0.82 <= covered / 150 <= 0.96


def test_the_seed_decides():
    rows = np.random.default_rng(0).normal(size=20)
    assert bootstrap(np.mean, [rows], seed=1) == bootstrap(np.mean, [rows], seed=1)
    assert bootstrap(np.mean, [rows], seed=1) != bootstrap(np.mean, [rows], seed=2)


def test_rows_of_all_arrays_stay_together():
    rows = np.random.default_rng(0).normal(size=50)
    assert bootstrap(lambda a, b: float(np.abs(a - b).max()), [rows, rows.copy()], seed=0) == (0, 0)


def test_a_centred_interval_holds_a_biased_metrics_value():
    """Repeated rows push the Fréchet distance up: the plain interval lies above the value, the centred one around it."""
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(400, 20)), random.normal(size=(100, 20))
    value = frechet_distance(fake, real)
    plain = bootstrap(lambda rows: frechet_distance(rows, real), [fake], seed=0, resamplings=50)
    centred = bootstrap(lambda rows: frechet_distance(rows, real), [fake], seed=0, resamplings=50, centred=True)
    assert plain[0] > value
    assert centred[0] < value < centred[1]
    assert centred[1] - centred[0] == pytest.approx(plain[1] - plain[0])
