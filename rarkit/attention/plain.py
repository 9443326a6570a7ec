"""Attention written out: the reference for the other backends.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, final

from rarkit.attention.base import AttentionBackend, AttentionFunction

if TYPE_CHECKING:
    from torch import Tensor


@final
class Plain(AttentionBackend):
    """Softmax attention in three lines of tensor algebra. Keeps all S × T weights in memory; works everywhere."""

    name: Literal["plain"] = "plain"
    keeps_weights: ClassVar[bool] = True

    def build(self) -> AttentionFunction:
        return plain_attention


def plain_attention(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √K) v; see ``AttentionFunction``."""
    from torch.nn import functional

    scores_BNST = q_BNSK @ k_BNTK.transpose(-2, -1) * q_BNSK.shape[-1] ** -0.5
    if causal:
        future_ST = scores_BNST.new_ones(scores_BNST.shape[-2:]).triu(1).bool()
        scores_BNST = scores_BNST.masked_fill(future_ST, float("-inf"))
    weights_BNST = functional.dropout(scores_BNST.softmax(-1), dropout, training=dropout > 0)
    return weights_BNST @ v_BNTK
