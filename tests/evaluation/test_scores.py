"""Scores of classes, spread and likelihood: bounds, extremes and plain versions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rarkit.errors import UserError
from rarkit.evaluation import agreement, bits_per_token, diversity, inception_score

LOGITS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-30, 30, width=32))


@given(LOGITS, st.integers(1, 20))
@settings(deadline=None)
def test_inception_score_is_the_plain_formula_within_its_bounds(logits, split):
    odds = np.exp(logits.astype(np.float64))
    p = odds / odds.sum(1, keepdims=True)
    plain = []
    for start in range(0, len(p), split):
        part = p[start : start + split]
        plain.append(np.exp(np.mean([(row * np.log(row / part.mean(0))).sum() for row in part])))
    found = inception_score(logits, split_size=split)
    np.testing.assert_allclose(found, np.mean(plain), rtol=1e-9)
    assert 1 - 1e-9 <= found <= logits.shape[1] + 1e-9


@pytest.mark.parametrize("classes", [2, 10])
def test_inception_score_at_its_extremes(classes):
    sure = np.repeat(np.eye(classes) * 1e4, 3, axis=0)
    np.testing.assert_allclose(inception_score(sure), classes)
    np.testing.assert_allclose(inception_score(np.zeros((5, classes))), 1)
    np.testing.assert_allclose(inception_score(sure[:3]), 1)
    np.testing.assert_allclose(inception_score(sure, split_size=3), 1)
    np.testing.assert_allclose(inception_score(sure, split_size=None), classes)


@given(LOGITS)
def test_agreement_counts_the_likeliest_class(logits):
    best = logits.argmax(1)
    assert agreement(logits, best) == 1
    assert agreement(logits, best + 1) == 0
    half = best.copy()
    half[::2] += 1
    assert agreement(logits, half) == pytest.approx((len(best) // 2) / len(best))


def labelled(seed, count=30, classes=3):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 4)), np.arange(count) % classes


@given(st.integers(0, 999))
@settings(deadline=None)
def test_diversity_is_the_plain_mean_over_pairs(seed):
    (real, real_labels), (fake, fake_labels) = labelled(seed), labelled(seed + 1, 17)
    ratios = []
    for label in range(3):
        spreads = []
        for rows in (fake[fake_labels == label], real[real_labels == label]):
            spreads.append(np.sqrt(np.mean([((a - b) ** 2).sum() for a, b in itertools.combinations(rows, 2)])))
        ratios.append(spreads[0] / spreads[1])
    np.testing.assert_allclose(diversity(real, real_labels, fake, fake_labels), np.mean(ratios), rtol=1e-9)


@given(st.integers(0, 999), st.floats(0, 10))
@settings(deadline=None)
def test_diversity_is_relative_within_classes(seed, scale):
    real, labels = labelled(seed)
    assert diversity(real, labels, real, labels) == pytest.approx(1)
    moved = real * scale + labels[:, None] * 100
    assert diversity(real, labels, moved, labels) == pytest.approx(scale, abs=1e-9)


def test_diversity_of_copies_is_nothing_however_many_classes():
    real, labels = labelled(0)
    assert diversity(real, labels, real[labels], labels) == pytest.approx(0, abs=1e-12)


def test_diversity_needs_pairs():
    real, labels = labelled(0)
    assert diversity(real, labels, real[:4], labels[:4]) > 0  # class 0 alone has two images
    with pytest.raises(UserError, match="two images"):
        diversity(real, labels, real[:3], labels[:3])
    with pytest.raises(UserError, match="differ"):
        diversity(np.zeros((6, 2)), np.zeros(6, int), np.ones((6, 2)), np.zeros(6, int))


def test_bits_of_a_uniform_guess():
    assert bits_per_token(np.full((3, 4), np.log(128))) == pytest.approx(7)
