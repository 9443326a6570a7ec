"""The nearest rows of blocks are those of all rows at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rarkit.evaluation.nearest import nearest

SIZES = {"rows": 30, "queries": 5, "features": 4, "block": 31, "k": 8}


@given(seed=st.integers(0, 99), **{name: st.integers(1, most) for name, most in SIZES.items()})
def test_blocks_do_not_matter(rows, queries, features, block, k, seed):
    draw = np.random.default_rng(seed)
    all_NF = draw.integers(0, 4, (rows, features)).astype(np.float32)  # Few values, so that many are equally near.
    queries_QF = draw.integers(0, 4, (queries, features)).astype(np.float32)
    near = nearest(queries_QF, (all_NF[start : start + block] for start in range(0, rows, block)), k)
    distances_QN = np.linalg.norm(queries_QF[:, None].astype(float) - all_NF, axis=2)
    order_QK = np.argsort(distances_QN, 1, kind="stable")[:, :k]
    np.testing.assert_array_equal(near.rows_QK, order_QK)
    np.testing.assert_allclose(near.distances_QK, np.take_along_axis(distances_QN, order_QK, 1))


def test_a_copy_is_at_distance_zero_however_large_its_features():
    features_NF = 1e4 * np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    near = nearest(features_NF[[7, 31]], [features_NF[:20], features_NF[20:]], 2)
    np.testing.assert_array_equal(near.rows_QK[:, 0], [7, 31])
    np.testing.assert_array_equal(near.distances_QK[:, 0], 0.0)
    assert (near.distances_QK[:, 1] > 0).all()
