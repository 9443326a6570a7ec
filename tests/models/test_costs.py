"""What all transformers' costs share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rarkit.models.costs import recomputed_blocks


@given(st.integers(1, 60), st.integers(0, 70))
def test_blocks_are_counted_as_a_backward_pass_meets_them(depth, every):
    recomputed = {layer for layer in range(depth) if every and layer % every == 0}
    # Before the backward pass reaches a layer, those before it that are not recomputed still have all activations.
    peaks = [sum(below not in recomputed for below in range(layer)) + 1 for layer in range(depth)]
    assert recomputed_blocks(depth, every) == (len(recomputed), max(peaks))
