"""xFormers' memory-efficient attention as an attention backend.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, final

from rarkit import AttentionBackend, AttentionFunction, Dropout, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

requires_rarkit = ">=0.1,<0.2"


@final
class XFormers(AttentionBackend):
    """``xformers.ops.memory_efficient_attention``: exact attention that does not store the attention weights. CUDA only."""

    name: Literal["xformers"] = "xformers"

    def capability(self, device: str, dtype: str) -> str | None:
        if find_spec("xformers") is None:
            return "xFormers is not installed: pip install xformers, in the build for your torch and CUDA"
        if not device.startswith("cuda"):
            return f"xFormers has no attention on {device}, only on CUDA; choose sdpa"
        if dtype not in ("float32", "float16", "bfloat16"):
            return f"xFormers supports float32, float16 and bfloat16, not {dtype}; choose sdpa"
        return None

    def build(self) -> AttentionFunction:
        return attend


def attend(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None) -> Tensor:
    """softmax(q kᵀ / √K) v; see ``rarkit.AttentionFunction``."""
    from xformers.ops import LowerTriangularMask, memory_efficient_attention

    # xFormers expects (B, S, N, K).
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BNSK, k_BNTK, v_BNTK))
    mask = LowerTriangularMask() if causal else None
    # The kernel takes no seeds; it draws from torch's global generator.
    probability = 0.0 if dropout is None else dropout.probability
    read_BSNK: Tensor = memory_efficient_attention(q, k, v, attn_bias=mask, p=probability)
    return read_BSNK.transpose(1, 2)


@hookimpl
def rarkit_attention_backends() -> list[type[AttentionBackend]]:
    """Adds xFormers' attention to rarkit."""
    return [XFormers]
