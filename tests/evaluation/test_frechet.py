"""The Fréchet distance against what is known of it: closed forms, symmetries, and the textbook's matrix square root."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from rarkit.errors import FewImagesError, UserError
from rarkit.evaluation.frechet import Moments, frechet_between, frechet_distance, gaussian

SIZES = st.tuples(st.integers(2, 30), st.integers(2, 30), st.integers(1, 12), st.integers(0, 999))
"""Rows of both sets, features, seed: often fewer rows than features."""


def sets(sizes):
    n, m, features, seed = sizes
    random = np.random.default_rng(seed)
    mix = random.normal(size=(features, features))
    return random.normal(size=(n, features)), random.normal(size=(m, features)) @ mix + random.normal(size=features)


def with_moments(mean, covariance, count=50):
    """A set whose mean and covariance (divisor N − 1) are exactly these."""
    raw = np.random.default_rng(0).normal(size=(count, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(raw, rowvar=False)))).T
    return white @ np.linalg.cholesky(covariance).T + mean


@given(SIZES)
def test_it_is_symmetric_and_not_negative(sizes):
    a, b = sets(sizes)
    assert frechet_distance(a, b) >= 0
    np.testing.assert_allclose(frechet_distance(a, b), frechet_distance(b, a), rtol=1e-9)


@given(SIZES)
def test_equal_sets_are_at_no_distance(sizes):
    """To within 1e-12 of the variance; a square root of a product of covariances would leave 1e-8."""
    a, _ = sets(sizes)
    shuffled = np.random.default_rng(0).permutation(a)
    assert frechet_distance(a, shuffled) <= 1e-12 * max(1.0, a.var(0).sum())


@given(SIZES, st.floats(-100, 100))
def test_moving_a_set_adds_the_square_of_the_way(sizes, step):
    a, _ = sets(sizes)
    way = np.random.default_rng(1).normal(size=a.shape[1]) * step
    np.testing.assert_allclose(frechet_distance(a, a + way), way @ way, rtol=1e-9, atol=1e-9)


@given(SIZES)
def test_turning_and_moving_both_sets_changes_nothing(sizes):
    a, b = sets(sizes)
    features = a.shape[1]
    turn = ortho_group.rvs(features, random_state=0) if features > 1 else -np.ones((1, 1))
    np.testing.assert_allclose(frechet_distance(a @ turn + 3, b @ turn + 3), frechet_distance(a, b), rtol=1e-9, atol=1e-9)


@given(SIZES, st.floats(0.1, 10))
def test_scaling_both_sets_scales_it_squared(sizes, scale):
    a, b = sets(sizes)
    np.testing.assert_allclose(frechet_distance(a * scale, b * scale), scale**2 * frechet_distance(a, b), rtol=1e-9, atol=1e-12)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 5), st.floats(0.1, 5)), min_size=1, max_size=6))
def test_independent_features_add_up(moments):
    """Between normals with diagonal covariances it is Σ (μ − ν)² + (σ − τ)²."""
    mean_a, mean_b, sigma_a, sigma_b = np.array(moments).T
    distance = frechet_distance(with_moments(mean_a, np.diag(sigma_a**2)), with_moments(mean_b, np.diag(sigma_b**2)))
    np.testing.assert_allclose(distance, ((mean_a - mean_b) ** 2 + (sigma_a - sigma_b) ** 2).sum(), rtol=1e-8, atol=1e-9)


@given(SIZES.filter(lambda sizes: min(sizes[:2]) > 2 * sizes[2]))
def test_it_is_the_textbooks_formula(sizes):
    a, b = sets(sizes)
    cov_a, cov_b = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (a, b))
    root = sqrtm(cov_a @ cov_b).real
    plain = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    np.testing.assert_allclose(frechet_distance(a, b), plain, rtol=1e-6, atol=1e-6)


def test_fewer_images_than_features_need_no_trick():
    """Sets on orthogonal axes: nothing is shared, so the variances add up, though both covariances are singular."""
    random = np.random.default_rng(0)
    a, b = np.zeros((3, 500)), np.zeros((4, 500))
    a[:, :5], b[:, 10:15] = random.normal(size=(3, 5)), random.normal(size=(4, 5))
    expected = a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() + ((a.mean(0) - b.mean(0)) ** 2).sum()
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-12)


def test_a_fitted_gaussian_may_be_kept():
    a, b = sets((20, 9, 4, 0))
    fitted = gaussian(a.astype(np.float32))
    np.testing.assert_allclose(fitted.factor_RF.T @ fitted.factor_RF, np.cov(a, rowvar=False), rtol=1e-5)
    assert frechet_between(gaussian(a), gaussian(b)) == frechet_distance(a, b)


def test_what_has_no_covariance_is_refused():
    with pytest.raises(UserError, match="there are 1"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(UserError, match="1 of 5"):
        frechet_distance(np.zeros((5, 3)), np.array([[0, 0, 0]] * 4 + [[0, np.nan, 0]]))


@given(st.integers(2, 40), st.integers(1, 6), st.integers(1, 9), st.integers(0, 999))
def test_moments_of_batches_are_those_of_all(count, width, batch, seed):
    features_NF = np.random.default_rng(seed).normal(50, 3, (count, width))
    moments = Moments()
    for start in range(0, count, batch):
        moments.add(features_NF[start : start + batch])
    kept, whole = moments.gaussian(), gaussian(features_NF)
    np.testing.assert_allclose(kept.mean_F, whole.mean_F)
    np.testing.assert_allclose(kept.factor_RF.T @ kept.factor_RF, whole.factor_RF.T @ whole.factor_RF, atol=1e-9)


def test_moments_of_an_image_are_no_covariance():
    moments = Moments()
    moments.add(np.ones((1, 3)))
    with pytest.raises(FewImagesError, match="there are 1"):
        moments.gaussian()
