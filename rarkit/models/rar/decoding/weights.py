"""A model's weights prepared for decoding, and the interface of models that decoding uses.

Shape letters: N heads, K head width.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from rarkit.attention.base import AttentionFunction
from rarkit.errors import CapabilityError, RarkitWarning, UserError
from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.decoding.native_kernels import Kernels, compiled_kernels
from rarkit.models.rar.decoding.projections import Project, compiled_projection, int8_projection, projection, rows_dtype
from rarkit.models.rar.layers import Block, FinalNorm
from rarkit.runtime.processors import is_x86


@final
@dataclass(frozen=True)
class BlockWeights:
    """The weights of a transformer block: its projections, and the stacked norms of queries and keys."""

    qkv: Project
    proj: Project
    fc1_gelu: Project
    fc2: Project
    qk_weight_2NK: Tensor
    """(2, 1, K): the queries' weight, then the keys'."""
    qk_bias_2NK: Tensor
    """(2, 1, K): the queries' bias, then the keys'."""


class Network(Protocol):
    """The part of a model that decoding uses; ``OrderedTransformer`` implements it."""

    config: RARConfig
    attention: AttentionFunction
    cls_token: nn.Parameter
    embeddings: nn.Embedding
    adaln_before_head: FinalNorm
    lm_head: nn.Linear

    @property
    def layers(self) -> Sequence[Block]: ...

    @property
    def has_modulations(self) -> bool: ...

    @property
    def attends_with_pytorch(self) -> bool: ...

    @property
    def no_class_id(self) -> int: ...

    def class_ids(self, labels_B: Tensor, dropped_B: Tensor | None = None) -> Tensor: ...

    def conditioning(self, class_ids_B: Tensor, start: int, stop: int) -> Tensor: ...

    def positions(self, orders_BL: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True)
class DecodingWeights:
    """The result of ``lay_out``: a snapshot of the weights."""

    model: Network
    blocks: Sequence[BlockWeights]
    head: Project
    rows_dtype: torch.dtype
    """The dtype of computation: the model's, or a wider one if this machine has no instructions for it."""
    cache_dtype: torch.dtype
    kernels: Kernels | None = None
    """The compiled kernels; None means PyTorch's own."""
    spare: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)
    """The memory (and, on CUDA, the graphs) of the last batch, by number of rows, for the next batch of that size."""


@torch.inference_mode()
def lay_out(model: Network, *, int8: bool, float8_cache: bool, compiled: bool | None) -> DecodingWeights:
    """See ``rarkit.models.rar.decoding.prepared.prepare``, which has the same arguments and errors."""
    if int8 and (model.cls_token.device.type != "cpu" or model.cls_token.dtype != torch.bfloat16):
        raise UserError(
            f"int8 weights need a bfloat16 model on the CPU; this one is {model.cls_token.dtype} on {model.cls_token.device}. "
            "Move it with model.to('cpu', torch.bfloat16), or decode without int8."
        )
    kernels = _kernels(model, int8, compiled)
    project: Callable[..., Project] = int8_projection if int8 else projection
    if kernels is not None:
        project = partial(compiled_projection, kernels, int8=int8)
    head = projection(model.lm_head) if kernels is None else compiled_projection(kernels, model.lm_head)
    dtype = rows_dtype(model.cls_token) if kernels is None else torch.float32
    cache_dtype = torch.float8_e4m3fn if float8_cache else model.cls_token.dtype
    blocks = [_block_weights(block, project, dtype) for block in model.layers]
    return DecodingWeights(model, blocks, head, dtype, cache_dtype, kernels)


def _kernels(model: Network, int8: bool, compiled: bool | None) -> Kernels | None:
    device, dtype = model.cls_token.device, model.cls_token.dtype
    capable = is_x86(device) and sys.platform.startswith("linux") and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
    supported = capable and dtype in (torch.float32, torch.bfloat16)
    if not supported and compiled:
        raise CapabilityError(
            f"compiled kernels need float32 or bfloat16 on an x86 processor with AVX2 under Linux; this is {dtype} on {device}"
        )
    # Processors with bfloat16 instructions multiply it at twice the rate of float32.
    prefer = supported and (dtype == torch.float32 or int8 or not torch.cpu._is_avx512_bf16_supported())
    if not (prefer if compiled is None else compiled):
        return None
    try:
        return compiled_kernels()
    except CapabilityError as error:
        if compiled:
            raise
        warnings.warn(f"decoding with PyTorch's own kernels, which are slower here: {error}", RarkitWarning, stacklevel=5)
        return None


def _block_weights(block: Block, project: Callable[..., Project], dtype: torch.dtype) -> BlockWeights:
    attention, mlp = block.attn, block.mlp
    norms = attention.q_norm, attention.k_norm
    return BlockWeights(
        project(attention.qkv),
        project(attention.proj),
        project(mlp.fc1, gelu=True),
        project(mlp.fc2),
        torch.stack([norm.weight.detach() for norm in norms])[:, None].to(dtype),
        torch.stack([norm.bias.detach() for norm in norms])[:, None].to(dtype),
    )
