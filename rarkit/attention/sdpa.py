"""PyTorch's fused attention.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

from rarkit.attention.base import AttentionBackend, AttentionFunction, Dropout
from rarkit.attention.plain import plain_attention

if TYPE_CHECKING:
    from torch import Tensor


@final
class SDPA(AttentionBackend):
    """``torch.nn.functional.scaled_dot_product_attention``; PyTorch picks the kernel (flash, memory-efficient, cuDNN, …).

    With dropout on the CPU, where none of them can drop weights, it is rarkit's own, whose masks are seeded by the samples.
    Elsewhere torch's generator draws the masks.
    """

    name: Literal["sdpa"] = "sdpa"

    def build(self) -> AttentionFunction:
        return fused_attention


def fused_attention(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None) -> Tensor:
    """softmax(q kᵀ / √K) v; see ``AttentionFunction``."""
    import torch
    from torch.nn import functional

    if q_BNSK.device.type == "cpu" and q_BNSK.dtype != torch.float32 and q_BNSK.shape[2] == 1:
        # For one query in half precision, as in decoding, PyTorch's CPU kernel takes about three times as long as plain products.
        return plain_attention(q_BNSK, k_BNTK, v_BNTK, causal=causal, dropout=dropout)
    if dropout is not None and q_BNSK.device.type == "cpu":
        if torch.compiler.is_compiling():
            return plain_attention(q_BNSK, k_BNTK, v_BNTK, causal=causal, dropout=dropout)
        from rarkit.attention.cpu import seeded_attention

        return seeded_attention(q_BNSK, k_BNTK, v_BNTK, causal=causal, dropout=dropout)
    # The fused kernels take no seeds; they draw from torch's global generator.
    probability = 0.0 if dropout is None else dropout.probability
    return functional.scaled_dot_product_attention(q_BNSK, k_BNTK, v_BNTK, is_causal=causal, dropout_p=probability)
