"""The inception score: its formula, bounds and extremes; classes that take turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rarkit.evaluation.inception_score import inception_score, taking_turns

LOGITS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-30, 30, width=32))


@given(LOGITS, st.integers(1, 20))
def test_inception_score_is_the_plain_formula_within_its_bounds(logits, split):
    odds = np.exp(logits.astype(np.float64))
    p = odds / odds.sum(1, keepdims=True)
    plain = []
    for start in range(0, len(p), split):
        part = p[start : start + split]
        plain.append(np.exp(np.mean([(row * np.log(row / part.mean(0))).sum() for row in part])))
    score = inception_score(logits, split_size=split)
    np.testing.assert_allclose(score, np.mean(plain), rtol=1e-9)
    assert 1 - 1e-9 <= score <= logits.shape[1] + 1e-9


@pytest.mark.parametrize("classes", [2, 10])
def test_inception_score_at_its_extremes(classes):
    sure = np.repeat(np.eye(classes) * 1e4, 3, axis=0)
    np.testing.assert_allclose(inception_score(sure), classes)
    np.testing.assert_allclose(inception_score(np.zeros((5, classes))), 1)
    np.testing.assert_allclose(inception_score(sure[:3]), 1)
    np.testing.assert_allclose(inception_score(sure, split_size=3), 1)
    np.testing.assert_allclose(inception_score(sure, split_size=None), classes)


@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 6)))
def test_classes_take_turns(labels):
    rows = taking_turns(labels)
    assert sorted(rows) == list(range(len(labels)))
    turns = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    longest = max(map(len, turns))
    expected = [rows_of_class[turn] for turn in range(longest) for rows_of_class in turns if turn < len(rows_of_class)]
    assert rows.tolist() == expected
