"""The layers of RAR's transformer, named as in the released checkpoints.

Shape letters: B batch, S sequence length, D width, N heads, K head width; M is 6·D (a block) or 2·D (the final norm); U classes of
a batch, P places of dropout in a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rarkit.attention.base import AttentionFunction, Dropout, attend
from rarkit.attention.sdpa import fused_attention
from rarkit.attention.seeded_masks import HIDDEN, OUTPUT, PROJECTION
from rarkit.models.dropout import dropout
from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.cpu_block import BlockStep, Sizes
from rarkit.models.rar.native_block import LONGEST, NativeStep
from rarkit.models.rar.native_training import training_kernels

PREFIX = 2
"""Entries before the first token: cls and class."""
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of new positions to all positions they may see: (q_BNSK, k_BNSK, v_BNSK) to (B, N, S, K)."""


@final
class Conditions(NamedTuple):
    """What the modulations of a batch depend on: its classes and the steps."""

    activated_USD: Tensor
    """SiLU of the conditioning vectors of classes: the batch's, or all that there are."""
    row_B: Tensor | None
    """Each sample's class in them, int64; None if sample b has row b."""

    def of_samples(self, modulations_USM: Tensor) -> Tensor:
        """The rows of the samples: (B, S, M)."""
        return modulations_USM if self.row_B is None else modulations_USM.index_select(0, self.row_B)

    def after(self, entry: int) -> Conditions:
        """Without the first entries of the sequence."""
        return self._replace(activated_USD=self.activated_USD[:, entry:])


@final
class CausalAttention:
    """Attention of a sequence to itself, in teacher forcing."""

    def __init__(self, attention: AttentionFunction, dropout: Dropout | None) -> None:
        self.attention, self.dropout = attention, dropout

    def __call__(self, q_BNSK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor) -> Tensor:
        return attend(self.attention, q_BNSK, k_BNSK, v_BNSK, causal=True, dropout=self.dropout)


@final
class Attention(nn.Module):
    """Projections around attention, with per-head layer norms of queries and keys; the caller's ``attend`` adds mask or cache."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.q_norm = nn.LayerNorm(config.head_size, eps=config.layer_norm_eps)
        self.k_norm = nn.LayerNorm(config.head_size, eps=config.layer_norm_eps)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.dropout

    def forward(self, x_BSD: Tensor, attend: Attend, keys_PB: Tensor | None = None) -> Tensor:
        q_BSNK, k_BSNK, v_BSNK = self.qkv(x_BSD).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        # Under autocast norms return float32 but the values are not float32; the three must have one dtype.
        q_BSNK, k_BSNK = self.q_norm(q_BSNK).to(v_BSNK.dtype), self.k_norm(k_BSNK).to(v_BSNK.dtype)
        read_BNSK = attend(q_BSNK.transpose(1, 2), k_BSNK.transpose(1, 2), v_BSNK.transpose(1, 2))
        return dropout(self, self.proj(read_BNSK.transpose(1, 2).flatten(2)), keys_PB, PROJECTION)


@final
class MLP(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.mlp_hidden_size)
        self.fc2 = nn.Linear(config.mlp_hidden_size, config.hidden_size)
        self.dropout = config.dropout

    def forward(self, x_BSD: Tensor, keys_PB: Tensor | None = None) -> Tensor:
        hidden_BSH = dropout(self, functional.gelu(self.fc1(x_BSD)), keys_PB, HIDDEN)
        return dropout(self, self.fc2(hidden_BSH), keys_PB, OUTPUT)


@final
class Block(nn.Module):
    """A transformer block with adaptive layer norms (AdaLN-zero) or plain ones."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        if config.conditioning == "adaln":
            self.adaLN_modulation = _modulation(config.hidden_size, 6)

    def forward(self, x_BSD: Tensor, conditions: Conditions | None, attend: Attend, keys_PB: Tensor | None = None) -> Tensor:
        """The block's output (B, S, D).

        Modulations are computed here and not by the caller, because ``fully_shard`` gathers a block's weights around ``forward``.

        Args:
            conditions: what the modulations depend on; None for plain norms.
            attend: attention to all positions that the new ones may see.
            keys_PB: (P, B) int64, the keys of dropout masks (``rarkit.attention.seeded_masks``); without them, torch's generator
                draws the masks.
        """
        if conditions is None:
            x_BSD = x_BSD + self.attn(self.norm1(x_BSD), attend, keys_PB)
            x_BSD = x_BSD + self.mlp(self.norm2(x_BSD), keys_PB)
            return x_BSD
        if isinstance(attend, CausalAttention) and self.steps_on_cpu(x_BSD, attend, keys_PB):
            return self._step_on_cpu(x_BSD, conditions, attend, keys_PB)
        modulations_BSM = conditions.of_samples(self.adaLN_modulation[1](conditions.activated_USD))
        shift1, scale1, gate1, shift2, scale2, gate2 = modulations_BSM.chunk(6, dim=-1)
        x_BSD = x_BSD + gate1 * self.attn(_modulate(self.norm1(x_BSD), shift1, scale1), attend, keys_PB)
        x_BSD = x_BSD + gate2 * self.mlp(_modulate(self.norm2(x_BSD), shift2, scale2), keys_PB)
        return x_BSD

    def steps_on_cpu(self, x_BSD: Tensor, attend: CausalAttention, keys_PB: Tensor | None) -> bool:
        """Whether ``BlockStep`` computes the same: in training on the CPU, in float32 or float64 throughout, with PyTorch's
        attention and layers."""
        if (
            not self.training
            or x_BSD.device.type != "cpu"
            or x_BSD.dtype not in (torch.float32, torch.float64)
            or torch.compiler.is_compiling()
            or not (torch.is_grad_enabled() and x_BSD.requires_grad)
        ):
            return False
        if torch.is_autocast_enabled("cpu") or attend.attention is not fused_attention:
            return False
        if keys_PB is None and (attend.dropout is not None or self._rate > 0):
            return False
        return all(_is_plain(layer, kind, x_BSD.dtype) for layer, kind in self._layers())

    @property
    def _rate(self) -> float:
        return self.mlp.dropout if self.training else 0.0

    def _layers(self) -> list[tuple[nn.Module, type[nn.Module]]]:
        """The layers in the order of ``cpu_block.Weights``, with what they are unless somebody has replaced them."""
        attention, mlp = self.attn, self.mlp
        return [
            (self.norm1, nn.LayerNorm),
            (attention.qkv, nn.Linear),
            (attention.q_norm, nn.LayerNorm),
            (attention.k_norm, nn.LayerNorm),
            (attention.proj, nn.Linear),
            (self.norm2, nn.LayerNorm),
            (mlp.fc1, nn.Linear),
            (mlp.fc2, nn.Linear),
            (self.adaLN_modulation[1], nn.Linear),
        ]

    def _step_on_cpu(self, x_BSD: Tensor, conditions: Conditions, attend: CausalAttention, keys_PB: Tensor | None) -> Tensor:
        weights = [weight for layer, _ in self._layers() for weight in (layer.weight, layer.bias)]
        weight_rate = 0.0 if attend.dropout is None else attend.dropout.probability
        sizes = Sizes(self.attn.num_heads, self.norm1.eps, self._rate, weight_rate)
        out_BSD: Tensor
        kernels = training_kernels() if x_BSD.dtype == torch.float32 and x_BSD.shape[1] <= LONGEST else None
        if kernels is None:
            out_BSD = BlockStep.apply(x_BSD, *conditions, keys_PB, sizes, *weights)  # type: ignore[no-untyped-call]
        else:
            out_BSD = NativeStep.apply(x_BSD, *conditions, keys_PB, sizes, kernels, *weights)  # type: ignore[no-untyped-call]
        return out_BSD


@final
class FinalNorm(nn.Module):
    """The layer norm before the head. If adaptive, it has no weights of its own."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        adaptive = config.conditioning == "adaln"
        self.norm_final = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, elementwise_affine=not adaptive)
        if adaptive:
            self.adaLN_modulation = _modulation(config.hidden_size, 2)

    def forward(self, x_BSD: Tensor, conditions: Conditions | None) -> Tensor:
        normed_BSD: Tensor = self.norm_final(x_BSD)
        if conditions is None:
            return normed_BSD
        # Here it is scale, then shift; in blocks it is shift, then scale.
        modulations_BSM = conditions.of_samples(self.adaLN_modulation[1](conditions.activated_USD))
        scale_BSD, shift_BSD = modulations_BSM.chunk(2, dim=-1)
        return _modulate(normed_BSD, shift_BSD, scale_BSD)


def _modulation(width: int, parts: int) -> nn.Sequential:
    # The SiLU takes index 0, as in the released names.
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _modulate(x_BSD: Tensor, shift_BSD: Tensor, scale_BSD: Tensor) -> Tensor:
    return x_BSD * (1 + scale_BSD) + shift_BSD


def _is_plain(layer: nn.Module, kind: type[nn.Module], dtype: torch.dtype) -> bool:
    """Whether a layer is PyTorch's own, is trained in this dtype, and calling it has no other effects."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    weights = layer._parameters.values()
    trained = all(weight is not None and weight.requires_grad and weight.dtype == dtype for weight in weights)
    return type(layer) is kind and not hooks and trained
