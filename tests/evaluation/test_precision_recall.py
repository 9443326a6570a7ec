"""Precision and recall against their definition written out, and where they must be 0 or 1."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import UserError
from rarkit.evaluation import precision_recall as module
from rarkit.evaluation.precision_recall import precision_recall

SETS = st.tuples(st.integers(6, 25), st.integers(6, 25), st.integers(1, 5), st.integers(1, 5), st.integers(0, 999))


def sets(sizes):
    n, m, k, features, seed = sizes
    random = np.random.default_rng(seed)
    return random.normal(size=(n, features)), random.normal(0.5, 1.5, size=(m, features)), k


def plain(real, fake, k):
    def covered(points, centres):
        radii = [sorted(np.linalg.norm(centres - centre, axis=1))[k] for centre in centres]  # the first is the centre itself
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in points])

    return covered(fake, real), covered(real, fake)


@given(SETS, st.sampled_from([1, 30, 10**6]))
def test_the_definition_in_any_chunks(sizes, chunk):
    real, fake, k = sets(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DISTANCES_AT_ONCE", chunk)
        overlap = precision_recall(real, fake, k)
    assert (overlap.precision, overlap.recall) == pytest.approx(plain(real, fake, k))


@given(SETS)
def test_changing_sides_changes_precision_into_recall(sizes):
    real, fake, k = sets(sizes)
    there, back = precision_recall(real, fake, k), precision_recall(fake, real, k)
    assert (there.precision, there.recall) == (back.recall, back.precision)


@given(SETS)
def test_more_neighbours_cover_more(sizes):
    real, fake, _ = sets(sizes)
    overlaps = [precision_recall(real, fake, k) for k in range(1, 6)]
    assert all(a.precision <= b.precision and a.recall <= b.recall for a, b in pairwise(overlaps))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_extremes(offset):
    random = np.random.default_rng(0)
    real = random.normal(size=(50, 8)) + offset
    same = precision_recall(real, real.astype(np.float32))
    assert (same.precision, same.recall) == (1, 1)
    far = precision_recall(real, real + 100)
    assert (far.precision, far.recall) == (0, 0)
    collapsed = precision_recall(real, np.repeat(real[:1], 50, axis=0))
    assert collapsed.precision == 1
    assert collapsed.recall == 1 / 50  # its balls have no radius: they reach the one image itself


def test_too_few_images():
    with pytest.raises(UserError, match="more than 3 generated images, and there are 3"):
        precision_recall(np.zeros((9, 2)), np.zeros((3, 2)))
