"""Attention to a KV cache whose filled length is in a tensor, so that one CUDA graph serves many lengths.

Shape letters: R rows, S = L + 1 entries of the sequence, T length of a bucket, N heads, K head width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import cast, final

import torch
from torch import Tensor
from torch.nn import functional

from rarkit.models.rar.decoding.steps import Read, cache_shape, narrowed
from rarkit.models.rar.decoding.weights import DecodingWeights


class FixedReads(ABC):
    """The KV cache of a batch, and attention over its filled part."""

    @abstractmethod
    def __init__(self, weights: DecodingWeights, rows: int) -> None:
        """Allocates the cache for ``rows`` rows."""

    @abstractmethod
    def at(self, entry_1: Tensor, rows: int, length: int) -> Read:
        """The function with which blocks write and read the cache at an entry.

        Args:
            entry_1: (1,) int64, below ``length``; its value is read only on the device.
            rows: number of rows to compute, from the first.
            length: length of the bucket; entries beyond it are not read.
        """


@final
class MaskedReads(FixedReads):
    """Masked scaled dot-product attention over a whole bucket. Works with any device, dtype and cache."""

    def __init__(self, weights: DecodingWeights, rows: int) -> None:
        # Zeros: masked entries have weight 0, but 0 times uninitialised memory can be NaN.
        shape = cache_shape(weights.model.config, rows)
        self.kv = torch.zeros(shape, dtype=weights.cache_dtype, device=weights.model.cls_token.device)
        self.dtype, self.heads = weights.rows_dtype, weights.model.config.num_heads

    def at(self, entry_1: Tensor, rows: int, length: int) -> Read:
        hidden_T = torch.arange(length, device=entry_1.device) > entry_1
        mask_T = torch.zeros(length, dtype=self.dtype, device=entry_1.device).masked_fill(hidden_T, float("-inf"))
        mask_RN1T = mask_T.expand(rows, self.heads, 1, length)

        def read(layer: int, q_RNK: Tensor, k_RNK: Tensor, v_RNK: Tensor) -> Tensor:
            keys_RNSK, values_RNSK = self.kv[layer, :, :rows]
            for cached_RNSK, new_RNK in ((keys_RNSK, k_RNK), (values_RNSK, v_RNK)):
                # float8 is viewed as bytes, because PyTorch cannot index it.
                plain = cached_RNSK.view(torch.uint8) if cached_RNSK.element_size() == 1 else cached_RNSK
                plain.index_copy_(2, entry_1, narrowed(new_RNK, cached_RNSK.dtype).view(plain.dtype)[:, :, None])
            read_RN1K = functional.scaled_dot_product_attention(
                q_RNK[:, :, None],
                keys_RNSK[:, :, :length].to(q_RNK.dtype),
                values_RNSK[:, :, :length].to(q_RNK.dtype),
                attn_mask=mask_RN1T,
            )
            return read_RN1K[:, :, 0]

        return read


@final
class FlashReads(FixedReads):
    """Flash-decoding: PyTorch's flash kernel splits the keys of a query among multiprocessors and reads only filled entries."""

    def __init__(self, weights: DecodingWeights, rows: int) -> None:
        config, device = weights.model.config, weights.model.cls_token.device
        self.entries = config.seq_len + 1
        shape = (config.depth, 2, rows, self.entries, config.num_heads, config.head_size)
        self.kv = torch.zeros(shape, dtype=weights.cache_dtype, device=device)
        self.row_starts = torch.arange(rows + 1, dtype=torch.int32, device=device)

    def at(self, entry_1: Tensor, rows: int, length: int) -> Read:
        filled_R = (entry_1 + 1).to(torch.int32).repeat(rows)
        query_starts = self.row_starts[: rows + 1]
        key_starts = query_starts * self.entries
        attend = varlen_attention()
        assert attend is not None

        def read(layer: int, q_RNK: Tensor, k_RNK: Tensor, v_RNK: Tensor) -> Tensor:
            keys_RSNK, values_RSNK = self.kv[layer, :, :rows]
            keys_RSNK.index_copy_(1, entry_1, k_RNK[:, None])
            values_RSNK.index_copy_(1, entry_1, v_RNK[:, None])
            keys, values = keys_RSNK.flatten(0, 1), values_RSNK.flatten(0, 1)
            return attend(q_RNK.contiguous(), keys, values, query_starts, key_starts, 1, length, seqused_k=filled_R)

        return read


def fixed_reads_for(weights: DecodingWeights) -> type[FixedReads]:
    """Flash-decoding if this PyTorch supports it for the GPU, dtype and cache; else masked attention."""
    model = weights.model
    dtype, device = model.cls_token.dtype, model.cls_token.device
    supported = (
        dtype in (torch.bfloat16, torch.float16)
        and weights.cache_dtype == dtype
        and model.config.head_size % 8 == 0
        and device.type == "cuda"
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
    attend = varlen_attention() if supported else None
    has_lengths = attend is not None and "seqused_k" in (attend.__kwdefaults__ or {})
    return FlashReads if has_lengths else MaskedReads


@cache
def varlen_attention() -> Callable[..., Tensor] | None:
    """PyTorch's flash kernel for sequences of different lengths; None before PyTorch 2.10.

    Imported only when a GPU needs it, because it imports torch's compiler, which takes seconds.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return cast(Callable[..., Tensor], varlen_attn)
