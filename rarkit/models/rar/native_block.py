"""A block's training step on x86 processors, for short sequences: PyTorch's matrix products, and compiled kernels for the rest.

It computes what ``BlockStep`` computes, which tests hold it to. There, a small model's time goes into the calls of operations.

Shape letters: B batch, S sequence length, D width, H width of the MLP, N heads, K head width, R = B·S rows, U classes, P places of
dropout or of modulations; M is 3·D or 6·D.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from rarkit.attention.seeded_masks import ATTENTION, HIDDEN, OUTPUT, PROJECTION
from rarkit.models.rar.cpu_block import Sizes, Weights, modulations, modulations_backwards
from rarkit.models.rar.native_training import Masks, Norm, Shape, TrainingKernels

LONGEST = 128
"""The longest sequence for which the kernels' attention is faster than matrix products."""


@final
class _Masks:
    """The masks of a block, by place."""

    def __init__(self, keys_PB: Tensor | None, sizes: Sizes) -> None:
        self._keys_PB, self._sizes = None if keys_PB is None else keys_PB.contiguous(), sizes

    def at(self, place: int) -> Masks:
        return self._of(place, self._sizes.dropout)

    @property
    def attention(self) -> Masks:
        return self._of(ATTENTION, self._sizes.attention_dropout)

    def _of(self, place: int, probability: float) -> Masks:
        return Masks(None if self._keys_PB is None or probability == 0 else self._keys_PB[place], probability)


@final
class Backwards(NamedTuple):
    """What the backward passes of both halves read, and where they put the gradients of modulations and weights."""

    kernels: TrainingKernels
    row_B: Tensor | None
    masks: _Masks
    sizes: Sizes
    own: Weights
    table_PUSD: Tensor
    gradients_PUSD: Tensor
    own_gradients: dict[str, Tensor]


@final
class NativeStep(torch.autograd.Function):
    """``apply(x_BSD, activated_USD, row_B, keys_PB, sizes, kernels, *weights)`` gives the block's output (B, S, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSD: Tensor,
        activated_USD: Tensor,
        row_B: Tensor | None,
        keys_PB: Tensor | None,
        sizes: Sizes,
        kernels: TrainingKernels,
        *weights: Tensor,
    ) -> Tensor:
        own, x_BSD = Weights(*weights), x_BSD.contiguous()
        batch = len(x_BSD)
        masks = _Masks(keys_PB, sizes)
        table_PUSD = modulations(activated_USD, own)
        modulated1_BSD, statistics1_R2 = kernels.modulate(x_BSD, _norm1(own, sizes), table_PUSD, row_B, 0)
        qkv_RM = torch.addmm(own.qkv_bias_3D, modulated1_BSD.flatten(0, 1), own.qkv_3DD.t())
        read_RD, *of_attention = kernels.attend(qkv_RM, _head_norms(own, sizes), _shape(x_BSD, sizes), masks.attention)
        out1_RD = torch.addmm(own.proj_bias_D, read_RD, own.proj_DD.t())
        middle_BSD = kernels.gate(x_BSD, out1_RD, table_PUSD[2], row_B, masks.at(PROJECTION))
        modulated2_BSD, statistics2_R2 = kernels.modulate(middle_BSD, _norm2(own, sizes), table_PUSD, row_B, 3)
        hidden_RH = torch.addmm(own.fc1_bias_H, modulated2_BSD.flatten(0, 1), own.fc1_HD.t())
        active_RH, slopes_RH = kernels.activate(hidden_RH, batch, masks.at(HIDDEN)), hidden_RH
        out2_RD = torch.addmm(own.fc2_bias_D, active_RH, own.fc2_DH.t())
        ctx.sizes, ctx.kernels, ctx.row_B, ctx.keys_PB = sizes, kernels, row_B, keys_PB
        ctx.save_for_backward(
            *weights, activated_USD, table_PUSD, x_BSD, modulated1_BSD, statistics1_R2, qkv_RM, read_RD, *of_attention,
            out1_RD, middle_BSD, modulated2_BSD, statistics2_R2, slopes_RH, active_RH, out2_RD,
        )  # fmt: skip
        return kernels.gate(middle_BSD, out2_RD, table_PUSD[5], row_B, masks.at(OUTPUT))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BSD: Tensor) -> tuple[Tensor | None, ...]:
        count = len(Weights._fields)
        all_saved = ctx.saved_tensors
        own, saved = Weights(*all_saved[:count]), all_saved[count:]
        activated_USD, table_PUSD, x_BSD, *of_attention = saved[:10]
        middle_BSD, *of_mlp = saved[10:]
        masks = _Masks(ctx.keys_PB, ctx.sizes)
        common = Backwards(ctx.kernels, ctx.row_B, masks, ctx.sizes, own, table_PUSD, torch.empty_like(table_PUSD), {})
        gradient_BSD = _mlp_backwards(gradient_BSD.contiguous(), middle_BSD, of_mlp, common)
        gradient_BSD = _attention_backwards(gradient_BSD, x_BSD, of_attention, common)
        activated = modulations_backwards(common.gradients_PUSD, activated_USD, own, common.own_gradients)
        return gradient_BSD, activated, None, None, None, None, *(common.own_gradients[name] for name in Weights._fields)


def _mlp_backwards(gradient_BSD: Tensor, x_BSD: Tensor, saved: list[Tensor], common: Backwards) -> Tensor:
    """The gradient of the second half's input; those of weights and modulations are put in their places."""
    kernels, row_B, masks, sizes, own, table_PUSD, gradients_PUSD, own_gradients = common
    modulated_BSD, statistics_R2, slopes_RH, active_RH, out_RD = saved
    out_gradient_RD, own_gradients["fc2_bias_D"] = kernels.gate_backwards(
        gradient_BSD, out_RD, table_PUSD[5], row_B, masks.at(OUTPUT), gradients_PUSD[5]
    )
    own_gradients["fc2_DH"] = out_gradient_RD.t() @ active_RH
    hidden_gradient_RH = out_gradient_RD @ own.fc2_DH
    own_gradients["fc1_bias_H"] = kernels.activate_backwards(hidden_gradient_RH, slopes_RH, len(x_BSD))
    own_gradients["fc1_HD"] = hidden_gradient_RH.t() @ modulated_BSD.flatten(0, 1)
    through_BSD, own_gradients["norm2_D"], own_gradients["norm2_bias_D"] = kernels.modulate_backwards(
        hidden_gradient_RH @ own.fc1_HD, gradient_BSD, x_BSD, statistics_R2, _norm2(own, sizes), table_PUSD, row_B, 3,
        gradients_PUSD,
    )  # fmt: skip
    return through_BSD


def _attention_backwards(gradient_BSD: Tensor, x_BSD: Tensor, saved: list[Tensor], common: Backwards) -> Tensor:
    """The gradient of the block's input; those of weights and modulations are put in their places."""
    kernels, row_B, masks, sizes, own, table_PUSD, gradients_PUSD, own_gradients = common
    modulated_BSD, statistics_R2, qkv_RM, read_RD, *of_heads, out_RD = saved
    out_gradient_RD, own_gradients["proj_bias_D"] = kernels.gate_backwards(
        gradient_BSD, out_RD, table_PUSD[2], row_B, masks.at(PROJECTION), gradients_PUSD[2]
    )
    own_gradients["proj_DD"] = out_gradient_RD.t() @ read_RD
    qkv_gradient_RM, of_norms = kernels.attend_backwards(
        out_gradient_RD @ own.proj_DD, qkv_RM, _head_norms(own, sizes), _shape(x_BSD, sizes), masks.attention, *of_heads
    )
    names = "q_norm_K", "q_norm_bias_K", "k_norm_K", "k_norm_bias_K"
    own_gradients |= zip(names, of_norms.unbind(0), strict=True)
    own_gradients["qkv_3DD"] = qkv_gradient_RM.t() @ modulated_BSD.flatten(0, 1)
    own_gradients["qkv_bias_3D"] = qkv_gradient_RM.sum(0)
    through_BSD, own_gradients["norm1_D"], own_gradients["norm1_bias_D"] = kernels.modulate_backwards(
        qkv_gradient_RM @ own.qkv_3DD, gradient_BSD, x_BSD, statistics_R2, _norm1(own, sizes), table_PUSD, row_B, 0,
        gradients_PUSD,
    )  # fmt: skip
    return through_BSD


def _shape(x_BSD: Tensor, sizes: Sizes) -> Shape:
    batch, length, width = x_BSD.shape
    return Shape(batch, length, sizes.heads, width // sizes.heads)


def _norm1(own: Weights, sizes: Sizes) -> Norm:
    return Norm(own.norm1_D, own.norm1_bias_D, sizes.epsilon)


def _norm2(own: Weights, sizes: Sizes) -> Norm:
    return Norm(own.norm2_D, own.norm2_bias_D, sizes.epsilon)


def _head_norms(own: Weights, sizes: Sizes) -> tuple[Tensor, Tensor, float]:
    return torch.stack([own.q_norm_K, own.k_norm_K]), torch.stack([own.q_norm_bias_K, own.k_norm_bias_K]), sizes.epsilon
