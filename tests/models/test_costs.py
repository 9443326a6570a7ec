"""What all transformers' costs share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rarkit.models.costs import activation_bytes, recomputed_blocks


@given(st.integers(1, 60), st.integers(0, 70), st.integers(1, 9), st.integers(1, 99), st.integers(0, 999))
def test_activations_are_counted_as_a_backward_pass_meets_them(depth, every, inputs, block, head):
    recomputed = {layer for layer in range(depth) if every and layer % every == 0}
    assert recomputed_blocks(depth, every) == len(recomputed)
    kept = {layer: 0 if layer in recomputed else block for layer in range(depth)}
    # The head's go first; then, from the last block to the first, a block is recomputed if it was not kept, and gone.
    peaks = [sum(kept.values()) + head]
    for layer in reversed(range(depth)):
        kept[layer] = block
        peaks.append(sum(kept.values()))
        del kept[layer]
    said = activation_bytes(depth, every, inputs=inputs, block=block, head=head)
    assert said == len(recomputed) * inputs + max(peaks)
