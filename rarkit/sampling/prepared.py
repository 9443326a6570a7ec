"""A model made ready for decoding.

Shape letters: N heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from rarkit.errors import UserError
from rarkit.models.layers import Block
from rarkit.models.transformer import OrderedTransformer
from rarkit.sampling.projections import Project, int8_projection, projection, rows_dtype


@final
@dataclass(frozen=True)
class PreparedBlock:
    """One transformer block: its projections, and the norms of queries and keys side by side."""

    qkv: Project
    proj: Project
    fc1_gelu: Project
    fc2: Project
    qk_weight_2NK: Tensor
    """(2, 1, K): of the queries, then of the keys."""
    qk_bias_2NK: Tensor


@final
@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` returns. Holds the weights as they were then: prepare again after training."""

    model: OrderedTransformer
    blocks: Sequence[PreparedBlock]
    head: Project
    rows_dtype: torch.dtype
    """What entries are computed in: the model's dtype, or a wider one where this machine has no instructions for it."""
    cache_dtype: torch.dtype
    spare: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)
    """The last batch's memory (and, on CUDA, its graphs), by its rows: the next batch of that size takes it over."""


@torch.inference_mode()
def prepare(model: OrderedTransformer, *, int8: bool = False, float8_cache: bool = False) -> Prepared:
    """Lays a model's weights out for decoding, once for any number of batches.

    Args:
        model: any RAR, merged or not, in the dtype to decode in.
        int8: keep the blocks' projections as int8, one scale for each output; the model must be in bfloat16, on the CPU. All else
            (embeddings, modulations, head, cache) stays in bfloat16.
        float8_cache: keep keys and values in float8 (e4m3, to ±448), and widen them where they are read: half the memory of a
            bfloat16 cache, for a relative error of up to 1/16 in each number.

    Raises:
        UserError: int8 was asked for elsewhere than on the CPU, or of a model in another dtype.
    """
    if int8 and (model.cls_token.device.type != "cpu" or model.cls_token.dtype != torch.bfloat16):
        raise UserError(
            f"int8 weights are for a bfloat16 model on the CPU; this one is {model.cls_token.dtype} on {model.cls_token.device}. "
            "Move it there with model.to('cpu', torch.bfloat16), or decode in bfloat16 where it is."
        )
    blocks = tuple(_prepared_block(block, int8) for block in model.layers)
    cache_dtype = torch.float8_e4m3fn if float8_cache else model.cls_token.dtype
    return Prepared(model, blocks, projection(model.lm_head), rows_dtype(model.cls_token), cache_dtype)


def _prepared_block(block: Block, int8: bool) -> PreparedBlock:
    lay_out = int8_projection if int8 else projection
    attention, mlp = block.attn, block.mlp
    norms, dtype = (attention.q_norm, attention.k_norm), rows_dtype(attention.qkv.weight)
    return PreparedBlock(
        lay_out(attention.qkv),
        lay_out(attention.proj),
        lay_out(mlp.fc1, gelu=True),
        lay_out(mlp.fc2),
        torch.stack([norm.weight.detach() for norm in norms])[:, None].to(dtype),
        torch.stack([norm.bias.detach() for norm in norms])[:, None].to(dtype),
    )
