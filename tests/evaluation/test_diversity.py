"""Diversity against the plain mean over pairs, and what it must not depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import UserError
from rarkit.evaluation.diversity import diversity


def labelled(seed, count=30, classes=3):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 4)), np.arange(count) % classes


@given(st.integers(0, 999))
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
