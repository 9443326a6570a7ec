"""Terms that the costs of all transformers have in common; no torch, since planning asks.

Shape letters: B batch, R rows of the batch (once more without classes, where guided), S entries of the sequence, N heads, V
codebook size.
"""

from __future__ import annotations

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 2}
"""Of one number in sampling, by precision; with int8, some projections alone have one byte a weight."""


def loss_bytes(codebook_size: int, size: int) -> int:
    """What an entry's loss holds as the backward pass begins: logits, their logarithmic softmax, and the gradients of both.

    Args:
        codebook_size: V.
        size: bytes of a logit.
    """
    return codebook_size * (size + 4 + 4 + 4)


def kept_weights_bytes(num_heads: int, entries: int, *, low: bool, dropped: bool) -> int:
    """What attention that keeps its weights keeps of one image and layer: the softmax, and what it multiplies the values with.

    Args:
        num_heads: N.
        entries: S.
        low: whether autocast multiplies in two bytes.
        dropped: whether weights are dropped.
    """
    element = 4 + (2 if low else 4 * dropped) + dropped
    return num_heads * entries**2 * element


def drawn_bytes(codebook_size: int, *, rows: int, batch: int, computed: int) -> int:
    """What a step of sampling holds of logits and of the distribution drawn from, in float64.

    Args:
        codebook_size: V.
        rows: R.
        batch: B.
        computed: bytes of a number as it is computed.
    """
    return codebook_size * (rows * (computed + 4) + batch * (4 + 3 * 8))


def keys_read(entries: int) -> int:
    """How many keys a sequence's queries see, one after the other: 1 + 2 + … + entries."""
    return entries * (entries + 1) // 2
