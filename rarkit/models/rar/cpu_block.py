"""A block's training step on the CPU, forwards and backwards in one node of the autograd graph.

It computes what ``Block.forward`` computes, which tests hold it to, with fewer passes over memory, fewer tensors kept for the
backward pass and less of autograd's work: a dropped unit of the MLP is one whose GELU is fed a very negative number, scales of
dropout are those of matrix products, modulations are read where they are computed, and their gradients are written where the next
product reads them.

Shape letters: B batch, S sequence length, D width, H width of the MLP, N heads, K head width, R = B·S rows, U classes, Q = U·S;
M is 6·D or 3·D; G samples at once; P places of dropout or of modulations.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from rarkit.attention.cpu import attend_backwards, attend_forwards, mean_gradient
from rarkit.attention.seeded_masks import ATTENTION, HIDDEN, OUTPUT, PROJECTION, draws, kept, kept_scale, threshold
from rarkit.models.rar.cpu_modulations import Gradients, Table

DROPPED = 1e15
"""What is taken from a dropped unit: GELU and its slope are then exactly 0, in float32 and float64."""
PLACES = 6
"""Shift, scale and gate of the block's two halves."""
_ATEN = torch.ops.aten


@final
class Weights(NamedTuple):
    """The parameters of a block."""

    norm1_D: Tensor
    norm1_bias_D: Tensor
    qkv_3DD: Tensor
    qkv_bias_3D: Tensor
    q_norm_K: Tensor
    q_norm_bias_K: Tensor
    k_norm_K: Tensor
    k_norm_bias_K: Tensor
    proj_DD: Tensor
    proj_bias_D: Tensor
    norm2_D: Tensor
    norm2_bias_D: Tensor
    fc1_HD: Tensor
    fc1_bias_H: Tensor
    fc2_DH: Tensor
    fc2_bias_D: Tensor
    modulation_MD: Tensor
    modulation_bias_M: Tensor


@final
class Sizes(NamedTuple):
    """What decides the computation beside tensors."""

    heads: int
    epsilon: float
    dropout: float
    attention_dropout: float


@final
class Backwards(NamedTuple):
    """What the backward passes of both halves read, and where they put the gradients of modulations and weights."""

    table: Table
    gradients: Gradients
    own: Weights
    own_gradients: dict[str, Tensor]
    sizes: Sizes


@final
class BlockStep(torch.autograd.Function):
    """``apply(x_BSD, activated_USD, row_B, keys_PB, sizes, *weights)`` gives the block's output (B, S, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSD: Tensor,
        activated_USD: Tensor,
        row_B: Tensor | None,
        keys_PB: Tensor | None,
        sizes: Sizes,
        *weights: Tensor,
    ) -> Tensor:
        own = Weights(*weights)
        modulations_PUSD = modulations(activated_USD, own)
        table = Table(modulations_PUSD, row_B, len(x_BSD))
        middle_BSD, of_attention = _attention(x_BSD, table, keys_PB, sizes, own)
        out_BSD, of_mlp = _mlp(middle_BSD, table, keys_PB, sizes, own)
        ctx.sizes, ctx.row_B, ctx.count = sizes, row_B, len(of_attention)
        ctx.save_for_backward(*weights, activated_USD, modulations_PUSD, x_BSD, *of_attention, middle_BSD, *of_mlp)
        return out_BSD

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BSD: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        count = len(Weights._fields)
        own, (activated_USD, modulations_PUSD, x_BSD, *rest) = Weights(*saved[:count]), saved[count:]
        of_attention, (middle_BSD, *of_mlp) = rest[: ctx.count], rest[ctx.count :]
        table = Table(modulations_PUSD, ctx.row_B, len(x_BSD))
        common = Backwards(table, Gradients(table), own, {}, ctx.sizes)
        gradient_BSD = _mlp_backwards(gradient_BSD, middle_BSD, of_mlp, common)
        gradient_BSD = _attention_backwards(gradient_BSD, x_BSD, of_attention, common)
        activated = modulations_backwards(common.gradients.table_PUSD, activated_USD, own, common.own_gradients)
        return gradient_BSD, activated, None, None, None, *(common.own_gradients[name] for name in Weights._fields)


def modulations(activated_USD: Tensor, own: Weights) -> Tensor:
    """As ``Block.modulations``, with 1 + scale for scale, each of the six (U, S, D) by itself."""
    activated_QD = activated_USD.flatten(0, 1)
    bias_P1D = own.modulation_bias_M.clone().view(PLACES, 1, -1)
    bias_P1D[1::3].add_(1)
    weight_PDD = own.modulation_MD.view(PLACES, -1, own.modulation_MD.shape[1])
    modulations_PQD = torch.baddbmm(bias_P1D, activated_QD.expand(PLACES, -1, -1), weight_PDD.transpose(1, 2))
    return modulations_PQD.view(PLACES, *activated_USD.shape)


def modulations_backwards(gradient_PUSD: Tensor, activated_USD: Tensor, own: Weights, own_gradients: dict[str, Tensor]) -> Tensor:
    """The gradient of ``activated_USD``; those of the weights are put in their places."""
    activated_QD, gradient_PQD = activated_USD.flatten(0, 1), gradient_PUSD.flatten(1, 2)
    own_gradients["modulation_MD"] = torch.bmm(gradient_PQD.transpose(1, 2), activated_QD.expand(PLACES, -1, -1)).flatten(0, 1)
    own_gradients["modulation_bias_M"] = gradient_PQD.sum(1).flatten()
    out_QD = torch.zeros_like(activated_QD)
    for gradient_QD, weight_DD in zip(gradient_PQD, own.modulation_MD.chunk(PLACES), strict=True):
        out_QD.addmm_(gradient_QD, weight_DD)
    return out_QD.view_as(activated_USD)


def _attention(
    x_BSD: Tensor, table: Table, keys_PB: Tensor | None, sizes: Sizes, own: Weights
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The block's first half, and what its backward pass needs."""
    normed_BSD, mean, deviation = torch.native_layer_norm(x_BSD, x_BSD.shape[-1:], own.norm1_D, own.norm1_bias_D, sizes.epsilon)
    qkv_RM = torch.addmm(own.qkv_bias_3D, _modulated(normed_BSD, table, 0).flatten(0, 1), own.qkv_3DD.t())
    # Laid out once for all products of attention.
    raw_3GSK = qkv_RM.view(*x_BSD.shape[:2], 3, sizes.heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2).contiguous()
    raw_q_GSK, raw_k_GSK, v_GSK = raw_3GSK.unbind(0)
    width = v_GSK.shape[-1:]
    q_GSK, *of_q = torch.native_layer_norm(raw_q_GSK, width, own.q_norm_K, own.q_norm_bias_K, sizes.epsilon)
    k_GSK, *of_k = torch.native_layer_norm(raw_k_GSK, width, own.k_norm_K, own.k_norm_bias_K, sizes.epsilon)
    keys_B = keys_PB[ATTENTION] if keys_PB is not None and sizes.attention_dropout > 0 else None
    read_GSK, kept_weights = attend_forwards(q_GSK, k_GSK, v_GSK, sizes.heads, keys_B, sizes.attention_dropout, causal=True)
    read_RD = read_GSK.view(len(x_BSD), sizes.heads, *read_GSK.shape[1:]).transpose(1, 2).reshape(len(qkv_RM), -1)
    out_RD = torch.addmm(own.proj_bias_D, read_RD, own.proj_DD.t())
    middle_BSD, mask = _gated(x_BSD, out_RD.view_as(x_BSD), table, 2, keys_PB, PROJECTION, sizes.dropout)
    return middle_BSD, (
        normed_BSD, mean, deviation, raw_3GSK, q_GSK, *of_q, k_GSK, *of_k, read_RD, out_RD, mask, *kept_weights,
    )  # fmt: skip


def _mlp(x_BSD: Tensor, table: Table, keys_PB: Tensor | None, sizes: Sizes, own: Weights) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The block's second half, and what its backward pass needs."""
    normed_BSD, mean, deviation = torch.native_layer_norm(x_BSD, x_BSD.shape[-1:], own.norm2_D, own.norm2_bias_D, sizes.epsilon)
    hidden_RH = torch.addmm(own.fc1_bias_H, _modulated(normed_BSD, table, 3).flatten(0, 1), own.fc1_HD.t())
    scale = 1.0
    if sizes.dropout:
        assert keys_PB is not None
        scale = kept_scale(sizes.dropout)
        hidden_BSH = hidden_RH.view(*x_BSD.shape[:2], -1)
        for samples in table.groups:
            part_GSH = hidden_BSH[samples]
            dropped_GSH = torch.empty_like(part_GSH)
            torch.lt(
                draws(keys_PB[HIDDEN, samples], part_GSH.shape[1], part_GSH.shape[2]), threshold(sizes.dropout), out=dropped_GSH
            )
            part_GSH.sub_(dropped_GSH, alpha=DROPPED)
    active_RH = torch.nn.functional.gelu(hidden_RH)
    out_RD = torch.addmm(own.fc2_bias_D, active_RH, own.fc2_DH.t(), alpha=scale)
    out_BSD, mask = _gated(x_BSD, out_RD.view_as(x_BSD), table, 5, keys_PB, OUTPUT, sizes.dropout)
    return out_BSD, (normed_BSD, mean, deviation, hidden_RH, active_RH, out_RD, mask)


def _mlp_backwards(gradient_BSD: Tensor, x_BSD: Tensor, saved: list[Tensor], common: Backwards) -> Tensor:
    """The gradient of the second half's input; those of weights and modulations are put in their places."""
    table, gradients, own, own_gradients, sizes = common
    normed_BSD, mean, deviation, hidden_RH, active_RH, out_RD, mask = saved
    scale = kept_scale(sizes.dropout) if sizes.dropout else 1.0
    out_gradient_RD = _gated_backwards(gradient_BSD, out_RD.view_as(x_BSD), mask, table, gradients, 5, sizes.dropout).flatten(0, 1)
    own_gradients["fc2_DH"] = torch.empty_like(own.fc2_DH).addmm_(out_gradient_RD.t(), active_RH, beta=0, alpha=scale)
    own_gradients["fc2_bias_D"] = _sum_of_rows(out_gradient_RD)
    hidden_gradient_RH = torch.empty_like(hidden_RH).addmm_(out_gradient_RD, own.fc2_DH, beta=0, alpha=scale)
    _ATEN.gelu_backward.grad_input(hidden_gradient_RH, hidden_RH, grad_input=hidden_gradient_RH)
    own_gradients["fc1_HD"] = hidden_gradient_RH.t() @ _modulated(normed_BSD, table, 3).flatten(0, 1)
    own_gradients["fc1_bias_H"] = _sum_of_rows(hidden_gradient_RH)
    modulated_BSD = (hidden_gradient_RH @ own.fc1_HD).view_as(x_BSD)
    _modulated_backwards(modulated_BSD, normed_BSD, table, gradients, 3)
    through_BSD, own_gradients["norm2_D"], own_gradients["norm2_bias_D"] = _norm_backwards(
        modulated_BSD, x_BSD, mean, deviation, own.norm2_D, own.norm2_bias_D
    )
    return through_BSD.add_(gradient_BSD)


def _attention_backwards(gradient_BSD: Tensor, x_BSD: Tensor, saved: list[Tensor], common: Backwards) -> Tensor:
    """The gradient of the block's input; those of weights and modulations are put in their places."""
    table, gradients, own, own_gradients, sizes = common
    normed_BSD, mean, deviation, raw_3GSK, *of_norms, read_RD, out_RD, mask = saved[:13]
    q_GSK, q_mean, q_deviation, k_GSK, k_mean, k_deviation = of_norms
    out_gradient_RD = _gated_backwards(gradient_BSD, out_RD.view_as(x_BSD), mask, table, gradients, 2, sizes.dropout).flatten(0, 1)
    own_gradients["proj_DD"] = out_gradient_RD.t() @ read_RD
    own_gradients["proj_bias_D"] = _sum_of_rows(out_gradient_RD)
    by_head = *x_BSD.shape[:2], sizes.heads, -1
    read_gradient_BSNK = (out_gradient_RD @ own.proj_DD).view(by_head)
    mean_GS1 = mean_gradient(read_gradient_BSNK, read_RD.view(by_head))
    raw_q_GSK, raw_k_GSK, v_GSK = raw_3GSK.unbind(0)
    read_gradient_GSK = read_gradient_BSNK.transpose(1, 2).flatten(0, 1).contiguous()
    q_gradient_GSK, k_gradient_GSK, v_gradient_GSK = attend_backwards(
        read_gradient_GSK, mean_GS1, (q_GSK, k_GSK, v_GSK), saved[13:], sizes.heads, sizes.attention_dropout, causal=True
    )
    q_gradient_GSK, own_gradients["q_norm_K"], own_gradients["q_norm_bias_K"] = _norm_backwards(
        q_gradient_GSK, raw_q_GSK, q_mean, q_deviation, own.q_norm_K, own.q_norm_bias_K
    )
    k_gradient_GSK, own_gradients["k_norm_K"], own_gradients["k_norm_bias_K"] = _norm_backwards(
        k_gradient_GSK, raw_k_GSK, k_mean, k_deviation, own.k_norm_K, own.k_norm_bias_K
    )
    raw_gradient_BS3NK = raw_3GSK.new_empty(*x_BSD.shape[:2], 3, sizes.heads, v_GSK.shape[-1])
    for place_BSNK, part_GSK in zip(raw_gradient_BS3NK.unbind(2), (q_gradient_GSK, k_gradient_GSK, v_gradient_GSK), strict=True):
        place_BSNK.copy_(part_GSK.view(len(x_BSD), -1, *part_GSK.shape[1:]).transpose(1, 2))
    raw_gradient_RM = raw_gradient_BS3NK.view(len(read_RD), -1)
    own_gradients["qkv_3DD"] = raw_gradient_RM.t() @ _modulated(normed_BSD, table, 0).flatten(0, 1)
    own_gradients["qkv_bias_3D"] = _sum_of_rows(raw_gradient_RM)
    modulated_BSD = (raw_gradient_RM @ own.qkv_3DD).view_as(x_BSD)
    _modulated_backwards(modulated_BSD, normed_BSD, table, gradients, 0)
    through_BSD, own_gradients["norm1_D"], own_gradients["norm1_bias_D"] = _norm_backwards(
        modulated_BSD, x_BSD, mean, deviation, own.norm1_D, own.norm1_bias_D
    )
    return through_BSD.add_(gradient_BSD)


def _modulated(normed_BSD: Tensor, table: Table, first: int) -> Tensor:
    """normed · scale + shift, whose places in the modulations are ``first`` + 1 and ``first``."""
    out_BSD = torch.empty_like(normed_BSD)
    for samples, (shift_GSD, scale_GSD) in table.parts(first, first + 1):
        torch.addcmul(shift_GSD, normed_BSD[samples], scale_GSD, out=out_BSD[samples])
    return out_BSD


def _modulated_backwards(gradient_BSD: Tensor, normed_BSD: Tensor, table: Table, gradients: Gradients, first: int) -> None:
    """Turns the gradient of ``_modulated`` into that of ``normed_BSD``, in place."""
    for samples, (scale_GSD,) in table.parts(first + 1):
        gradients.add(samples, first, gradient_BSD[samples])
        gradients.add(samples, first + 1, gradient_BSD[samples], normed_BSD[samples])
        gradient_BSD[samples].mul_(scale_GSD)


def _gated(
    x_BSD: Tensor, out_BSD: Tensor, table: Table, gate: int, keys_PB: Tensor | None, place: int, dropout: float
) -> tuple[Tensor, Tensor]:
    """x + gate · dropout(out), and the mask; ``out_BSD`` is replaced by its dropout."""
    sum_BSD = torch.empty_like(x_BSD)
    mask_BSD = torch.empty(out_BSD.shape if dropout else 0, dtype=torch.bool)
    for samples, (gate_GSD,) in table.parts(gate):
        part_GSD = out_BSD[samples]
        if dropout:
            assert keys_PB is not None
            mask_BSD[samples] = kept(keys_PB[place, samples], part_GSD.shape[1], part_GSD.shape[2], dropout)
            part_GSD.mul_(mask_BSD[samples].to(part_GSD.dtype).mul_(kept_scale(dropout)))
        torch.addcmul(x_BSD[samples], gate_GSD, part_GSD, out=sum_BSD[samples])
    return sum_BSD, mask_BSD


def _gated_backwards(
    gradient_BSD: Tensor, out_BSD: Tensor, mask_BSD: Tensor, table: Table, gradients: Gradients, gate: int, dropout: float
) -> Tensor:
    """The gradient of what was gated, before its dropout."""
    out_gradient_BSD = torch.empty_like(gradient_BSD)
    for samples, (gate_GSD,) in table.parts(gate):
        gradients.add(samples, gate, gradient_BSD[samples], out_BSD[samples])
        torch.mul(gradient_BSD[samples], gate_GSD, out=out_gradient_BSD[samples])
        if dropout:
            out_gradient_BSD[samples].mul_(mask_BSD[samples].to(out_gradient_BSD.dtype).mul_(kept_scale(dropout)))
    return out_gradient_BSD


def _norm_backwards(
    gradient: Tensor, x: Tensor, mean: Tensor, deviation: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a layer norm's input, weight and bias."""
    outputs: tuple[Tensor, Tensor, Tensor] = _ATEN.native_layer_norm_backward(
        gradient, x, weight.shape, mean, deviation, weight, bias, [True, True, True]
    )
    return outputs


def _sum_of_rows(values_RD: Tensor) -> Tensor:
    # As a product it takes half as long as torch's sum.
    return torch.mv(values_RD.t(), values_RD.new_ones(len(values_RD)))
