"""Attention as matrix products: the reference for the other backends.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, final

from rarkit.attention.base import AttentionBackend, AttentionFunction, Dropout

if TYPE_CHECKING:
    from torch import Tensor


@final
class Plain(AttentionBackend):
    """Softmax attention as plain matrix products. Works on every device; keeps all S × T weights in memory."""

    version: ClassVar[int] = 2
    name: Literal["plain"] = "plain"
    has_seeded_dropout: ClassVar[bool] = True
    keeps_weights: ClassVar[bool] = True

    def build(self) -> AttentionFunction:
        return plain_attention


def plain_attention(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None) -> Tensor:
    """softmax(q kᵀ / √K) v; see ``AttentionFunction``."""
    scores_BNST = q_BNSK @ k_BNTK.transpose(-2, -1) * q_BNSK.shape[-1] ** -0.5
    if causal:
        future_ST = scores_BNST.new_ones(scores_BNST.shape[-2:]).triu(1).bool()
        scores_BNST = scores_BNST.masked_fill(future_ST, float("-inf"))
    weights_BNST = scores_BNST.softmax(-1)
    if dropout is not None:
        weights_BNST = weights_BNST * _kept(dropout, weights_BNST)
    read_BNSK: Tensor = weights_BNST @ v_BNTK
    return read_BNSK


def _kept(dropout: Dropout, weights_BNST: Tensor) -> Tensor:
    """0 for a dropped weight, and for the others what keeps the mean. The same on every device."""
    from rarkit.attention.seeded_masks import ATTENTION, draws, kept_scale, mask_keys, threshold

    _, heads, queries, keys = weights_BNST.shape
    drawn_BNST = draws(mask_keys(dropout.seeds_B, dropout.layer, ATTENTION), (heads, queries), keys)
    return (drawn_BNST >= threshold(dropout.probability)).to(weights_BNST.dtype) * kept_scale(dropout.probability)
