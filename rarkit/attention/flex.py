"""PyTorch's flex attention.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from rarkit.attention.base import AttentionBackend, AttentionFunction, Dropout
from rarkit.errors import CapabilityError

if TYPE_CHECKING:
    from torch import Tensor


@final
class Flex(AttentionBackend):
    """``torch.nn.attention.flex_attention``, compiled on CUDA. Has no attention dropout: set ``attention_dropout = 0``.

    On the CPU it is not fused and has no backward pass, so it is useful only for comparisons.
    """

    name: Literal["flex"] = "flex"
    has_dropout: ClassVar[bool] = False

    def capability(self, device: str, dtype: str) -> str | None:
        if not device.startswith("cuda"):
            return f"flex attention has no backward pass on {device}, only on CUDA; choose sdpa"
        if dtype not in ("float32", "bfloat16", "float16"):
            return f"flex attention on CUDA supports float32, bfloat16 and float16, not {dtype}; choose sdpa"
        return None

    def build(self) -> AttentionFunction:
        return flex


def flex(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None) -> Tensor:
    """softmax(q kᵀ / √K) v; see ``AttentionFunction``.

    Raises:
        CapabilityError: ``dropout`` is given, or a gradient is required on a device other than CUDA.
    """
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    if dropout is not None:
        raise CapabilityError(
            f"flex attention has no attention dropout, but attention_dropout is {dropout.probability}: set it to 0, or choose sdpa"
        )
    inputs = (q_BNSK, k_BNTK, v_BNTK)
    on_cuda = q_BNSK.is_cuda
    if not on_cuda and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        raise CapabilityError(f"flex attention has no backward pass on {q_BNSK.device}, only on CUDA: choose sdpa")
    mask = _causal_mask(q_BNSK.shape[2], q_BNSK.device) if causal else None
    if on_cuda:
        read_BNSK: Tensor = _compiled()(*inputs, block_mask=mask)
    else:
        # torch refuses leaf tensors that require gradients even with gradients disabled.
        read_BNSK = flex_attention(q_BNSK.detach(), k_BNTK.detach(), v_BNTK.detach(), block_mask=mask)
    return read_BNSK


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    from rarkit.files.code_folders import torch_compiled

    return torch_compiled(flex_attention)


@lru_cache(maxsize=8)
def _causal_mask(length: int, device: Any) -> Any:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    # A mask created in inference mode, while sampling, could not be used in a later training step.
    with torch.inference_mode(False):
        return create_block_mask(_sees, None, None, length, length, device=device)


def _sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key
