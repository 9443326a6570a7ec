"""xFormers' memory-efficient attention as an attention backend.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, final

from rarkit import AttentionBackend, AttentionFunction, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@final
class XFormers(AttentionBackend):
    """``xformers.ops.memory_efficient_attention``: exact attention without the matrix of weights, on CUDA."""

    name: Literal["xformers"] = "xformers"

    def capability(self, device: str, dtype: str) -> str | None:
        if find_spec("xformers") is None:
            return 'xFormers is not installed: pip install "rarkit-xformers[xformers]"'
        if not device.startswith("cuda"):
            return f"xFormers has no attention on {device}, only on CUDA: choose sdpa"
        if dtype not in ("float32", "float16", "bfloat16"):
            return f"xFormers works in float32, float16 and bfloat16, not in {dtype}: choose sdpa"
        return None

    def build(self) -> AttentionFunction:
        return attend


def attend(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √K) v, (B, N, S, K) in the dtype of q; ``causal`` needs S = T."""
    from xformers.ops import LowerTriangularMask, memory_efficient_attention

    # xFormers keeps the heads behind the sequence: (B, S, N, K).
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BNSK, k_BNTK, v_BNTK))
    read_BSNK: Tensor = memory_efficient_attention(q, k, v, attn_bias=LowerTriangularMask() if causal else None, p=dropout)
    return read_BSNK.transpose(1, 2)


@hookimpl
def rarkit_attention_backends() -> list[type[AttentionBackend]]:
    """Brings xFormers' attention to rarkit."""
    return [XFormers]
