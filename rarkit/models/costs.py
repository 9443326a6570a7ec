"""Terms shared by the costs of all transformers. Imports no torch, because planning uses it.

Shape letters: B batch, R rows (the batch, twice if guided: with and without classes), S entries of the sequence, N heads, V
codebook size.
"""

from __future__ import annotations

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 2}
"""Bytes per number in sampling, by precision; with int8, only some projections use one byte per weight."""


def loss_bytes(codebook_size: int, size: int) -> int:
    """Bytes that the loss of an entry holds when the backward pass starts: logits, log-softmax, and the gradients of both.

    Args:
        codebook_size: V.
        size: bytes per logit.
    """
    return codebook_size * (size + 4 + 4 + 4)


def kept_weights_bytes(num_heads: int, entries: int, *, low: bool, dropped: bool) -> int:
    """Bytes per image and layer that attention with saved weights keeps: the softmax, and the factors of the values.

    Args:
        num_heads: N.
        entries: S.
        low: whether autocast uses a two-byte dtype.
        dropped: whether there is dropout of attention weights.
    """
    element = 4 + (2 if low else 4 * dropped) + dropped
    return num_heads * entries**2 * element


def drawn_bytes(codebook_size: int, *, rows: int, batch: int, computed: int) -> int:
    """Bytes of the logits and of the float64 sampling distribution in one step of sampling.

    Args:
        codebook_size: V.
        rows: R.
        batch: B.
        computed: bytes per number in the dtype of computation.
    """
    return codebook_size * (rows * (computed + 4) + batch * (4 + 3 * 8))


def recomputed_blocks(depth: int, checkpointing: int) -> int:
    """How many blocks keep only their input until they are recomputed.

    Args:
        depth: number of blocks.
        checkpointing: every block (1) or every n-th (n), from the first; 0 for none.
    """
    return -(-depth // checkpointing) if checkpointing else 0


def activation_bytes(depth: int, checkpointing: int, *, inputs: int, block: int, head: int) -> int:
    """The most bytes of activations that there are at a time.

    Args:
        depth, checkpointing: as for ``recomputed_blocks``.
        inputs: bytes of a block's input.
        block: bytes that a block saves.
        head: bytes of the last norm, the head and the loss.
    """
    recomputed = recomputed_blocks(depth, checkpointing)
    at_start = (depth - recomputed) * block + head
    # Those of the head are gone when the last of these blocks is recomputed: there are its own, and the others' before it.
    later = ((recomputed - 1) * (checkpointing - 1) + 1) * block if recomputed else 0
    return recomputed * inputs + max(at_start, later)


def keys_read(entries: int) -> int:
    """Number of keys that all queries of a causal sequence see together: 1 + 2 + … + entries."""
    return entries * (entries + 1) // 2
