"""Use of a codebook: bounds, and what relabelling does not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rarkit.errors import UserError
from rarkit.evaluation.codebook_use import codebook_use


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=3, max_side=9), elements=st.integers(0, 19)), st.integers(20, 40))
def test_codebook_use_is_within_its_bounds(tokens, size):
    use = codebook_use(tokens, size)
    distinct = len(np.unique(tokens))
    assert use.share == distinct / size
    assert 1 - 1e-9 <= use.perplexity <= distinct + 1e-9
    relabelled = np.random.default_rng(0).permutation(size)[tokens]
    assert codebook_use(relabelled, size).perplexity == pytest.approx(use.perplexity)


def test_codebook_use_at_its_extremes():
    assert codebook_use(np.arange(64).reshape(8, 8), 64).perplexity == pytest.approx(64)
    assert codebook_use(np.zeros((3, 3), np.uint16), 64) == codebook_use(np.full(5, 9), 64)
    assert codebook_use(np.zeros(5, int), 64).perplexity == 1
    with pytest.raises(UserError, match="no tokens"):
        codebook_use(np.zeros((0, 4), int), 8)
