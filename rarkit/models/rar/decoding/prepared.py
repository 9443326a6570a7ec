"""A model made ready for decoding.

Shape letters: N heads, K head width.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from rarkit.errors import CapabilityError, RarkitWarning, UserError
from rarkit.models.rar.layers import Block
from rarkit.runtime.processors import is_x86
from rarkit.models.rar.transformer import OrderedTransformer
from rarkit.models.rar.decoding.native_kernels import Kernels, kernels
from rarkit.models.rar.decoding.projections import Project, compiled_projection, int8_projection, projection, rows_dtype


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
    kernels: Kernels | None = None
    """What multiplies and attends, on processors that it was compiled for; PyTorch's own where None."""
    spare: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)
    """The last batch's memory (and, on CUDA, its graphs), by its rows: the next batch of that size takes it over."""


@torch.inference_mode()
def prepare(model: OrderedTransformer, *, int8: bool = False, float8_cache: bool = False, compiled: bool | None = None) -> Prepared:
    """Lays a model's weights out for decoding, once for any number of batches.

    Args:
        model: any RAR, merged or not, in the dtype to decode in.
        int8: keep the blocks' projections as int8, one scale for each output; the model must be in bfloat16, on the CPU. All else
            (embeddings, modulations, head, cache) stays in bfloat16.
        float8_cache: keep keys and values in float8 (e4m3, to ±448), and widen them where they are read: half the memory of a
            bfloat16 cache, for a relative error of up to 1/16 in each number.
        compiled: whether rarkit's own compiled kernels decode, in float32 from weights and cache of any type; where None, if they
            are faster than PyTorch's here (with a warning where they cannot be compiled).

    Raises:
        UserError: int8 was asked for elsewhere than on the CPU, or of a model in another dtype.
        CapabilityError: compiled kernels were asked for where there are none; it says why.
    """
    if int8 and (model.cls_token.device.type != "cpu" or model.cls_token.dtype != torch.bfloat16):
        raise UserError(
            f"int8 weights are for a bfloat16 model on the CPU; this one is {model.cls_token.dtype} on {model.cls_token.device}. "
            "Move it there with model.to('cpu', torch.bfloat16), or decode in bfloat16 where it is."
        )
    found = _kernels(model, int8, compiled)
    lay_out = int8_projection if int8 else projection
    if found is not None:
        lay_out = partial(compiled_projection, found, int8=int8)
    head = projection(model.lm_head) if found is None else compiled_projection(found, model.lm_head)
    dtype = rows_dtype(model.cls_token) if found is None else torch.float32
    cache_dtype = torch.float8_e4m3fn if float8_cache else model.cls_token.dtype
    return Prepared(model, [_prepared_block(block, lay_out, dtype) for block in model.layers], head, dtype, cache_dtype, found)


def _kernels(model: OrderedTransformer, int8: bool, compiled: bool | None) -> Kernels | None:
    device, dtype = model.cls_token.device, model.cls_token.dtype
    capable = is_x86(device) and sys.platform.startswith("linux") and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
    serve = capable and dtype in (torch.float32, torch.bfloat16)
    if not serve and compiled:
        raise CapabilityError(
            f"compiled kernels are for float32 and bfloat16, on Linux and x86 processors with AVX2; this is {dtype} on {device}"
        )
    # Processors that multiply bfloat16 itself do that at twice the rate of float32.
    prefer = serve and (dtype == torch.float32 or int8 or not torch.cpu._is_avx512_bf16_supported())
    if not (prefer if compiled is None else compiled):
        return None
    try:
        return kernels()
    except CapabilityError as error:
        if compiled:
            raise
        warnings.warn(f"decoding with PyTorch's own products, which are slower here: {error}", RarkitWarning, stacklevel=4)
        return None


def _prepared_block(block: Block, lay_out: Callable[..., Project], dtype: torch.dtype) -> PreparedBlock:
    attention, mlp = block.attn, block.mlp
    norms = attention.q_norm, attention.k_norm
    return PreparedBlock(
        lay_out(attention.qkv),
        lay_out(attention.proj),
        lay_out(mlp.fc1, gelu=True),
        lay_out(mlp.fc2),
        torch.stack([norm.weight.detach() for norm in norms])[:, None].to(dtype),
        torch.stack([norm.bias.detach() for norm in norms])[:, None].to(dtype),
    )
