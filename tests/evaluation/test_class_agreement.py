"""Class agreement: a share of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rarkit.evaluation.class_agreement import agreement

LOGITS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-30, 30, width=32))


@given(LOGITS)
def test_agreement_counts_the_likeliest_class(logits):
    best = logits.argmax(1)
    assert agreement(logits, best) == 1
    assert agreement(logits, best + 1) == 0
    half = best.copy()
    half[::2] += 1
    assert agreement(logits, half) == pytest.approx((len(best) // 2) / len(best))
