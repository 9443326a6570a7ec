"""Dropout in the layers of models.

Shape letters: B batch, D width, P places of dropout.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from rarkit.attention.seeded_masks import dropped_out


class Dropping(Protocol):
    """A layer with dropout."""

    training: bool
    dropout: float


def dropout(layer: Dropping, values_BSD: Tensor, keys_PB: Tensor | None, place: int) -> Tensor:
    """Zeroes values in training, and scales the others so that the mean stays.

    Args:
        layer: whose probability and mode count.
        values_BSD: (B, …, D).
        keys_PB: (P, B) int64, the keys of a block's masks, which then depend on nothing else; None draws them from torch's
            generator.
        place: which of the keys.
    """
    if not layer.training or layer.dropout == 0:
        return values_BSD
    if keys_PB is None:
        return functional.dropout(values_BSD, layer.dropout)
    return dropped_out(values_BSD, keys_PB[place], layer.dropout)
