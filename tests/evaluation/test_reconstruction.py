"""Fidelity of reconstructions: closed forms, and SSIM window by window as its paper defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import UserError
from rarkit.evaluation.reconstruction import psnr, ssim

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 15), st.integers(1, 15), st.sampled_from([1, 3]), st.integers(0, 999))


def pair(sizes):
    *shape, seed = sizes
    random = np.random.default_rng(seed)
    a = random.integers(0, 256, shape, dtype=np.uint8)
    return a, np.clip(a + random.normal(0, 30, shape), 0, 255).astype(np.uint8)


@given(st.integers(0, 255), st.integers(0, 255))
def test_psnr_of_flat_images(a, b):
    images = [np.full((2, 3, 4, 1), shade, np.uint8) for shade in (a, b)]
    expected = np.inf if a == b else 20 * np.log10(255 / abs(a - b))
    np.testing.assert_allclose(psnr(*images), [expected] * 2)


def plain_ssim(a, b):
    """One image of one channel, window by window."""
    sides = [min(11, side) - (min(11, side) + 1) % 2 for side in a.shape]
    rows, columns = (np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * 1.5**2)) for side in sides)
    weights = np.outer(rows, columns) / np.outer(rows, columns).sum()
    similarities = []
    for row in range(a.shape[0] - sides[0] + 1):
        for column in range(a.shape[1] - sides[1] + 1):
            x, y = (image[row : row + sides[0], column : column + sides[1]].astype(np.float64) for image in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            similarities.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(similarities)


@given(PAIRS)
def test_ssim_is_its_papers_formula(sizes):
    a, b = pair(sizes)
    channels = range(a.shape[-1])
    expected = [np.mean([plain_ssim(x[..., c], y[..., c]) for c in channels]) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(a, b), expected, rtol=1e-8)


@given(PAIRS)
def test_fidelity_is_symmetric_and_best_for_copies(sizes):
    a, b = pair(sizes)
    np.testing.assert_allclose(ssim(a, b), ssim(b, a), rtol=1e-9)
    np.testing.assert_array_equal(psnr(a, b), psnr(b, a))
    np.testing.assert_allclose(ssim(a, a), 1)
    assert np.all(np.isposinf(psnr(a, a)))
    assert np.all(np.abs(ssim(a, b)) <= 1 + 1e-9)


def test_shapes_must_agree():
    a = np.zeros((1, 4, 4, 1), np.uint8)
    for metric in (psnr, ssim):
        with pytest.raises(UserError, match=r"\(1, 4, 4, 1\)"):
            metric(a, a[:, :3])
