"""The compiled kernels of a block's training step: what lies between its matrix products, forwards and backwards.

Shape letters: B batch, S sequence length, D width, H width of the MLP, N heads, K head width, R = B·S rows, U classes, P = 6 places
of modulations.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from ctypes import c_float, c_int, c_void_p
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from rarkit.attention.seeded_masks import kept_scale, threshold
from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.models.rar.decoding.native_kernels import Kernels, compiled_kernels
from rarkit.runtime.processors import is_x86

SIDE_BY_SIDE = 16
"""Attention treats so many heads at once, or half as many on processors without AVX-512; room is for a multiple of it."""
_KINDS = {"p": c_void_p, "i": c_int, "f": c_float}
# Arguments of the functions in kernels.cpp: pointers, whole numbers and float32, the number of threads last.
_ARGUMENTS = {
    "modulate": "pppppppp iii f i",
    "modulate_backwards": "ppppppppppppp iiii i",
    "gate": "pppp pif p iii i",
    "gate_backwards": "pppp pif ppp iiii i",
    "activate": "p pif p iii i",
    "activate_backwards": "ppp iii i",
    "attend_forwards": "ppp f pif ppp iiii i",
    "attend_backwards": "pppp f pif pppp iiii i",
}


@final
class Masks(NamedTuple):
    """Dropout of (B, S, …): the samples' keys at a place (``rarkit.attention.seeded_masks``), and the probability."""

    keys_B: Tensor | None
    probability: float

    @property
    def arguments(self) -> tuple[Tensor | None, int, float]:
        """Keys, threshold and scale; no keys if nothing is dropped."""
        if self.probability == 0:
            return None, 0, 1.0
        assert self.keys_B is not None
        return self.keys_B, threshold(self.probability), kept_scale(self.probability)


@final
class Norm(NamedTuple):
    """A layer norm's weight and bias, and ε."""

    weight_D: Tensor
    bias_D: Tensor
    epsilon: float


@final
class TrainingKernels:
    """The kernels as functions of contiguous float32 tensors; rows of modulations (B,) are int64, or None if sample b has row b.

    Sums are added in an order that does not depend on the number of threads.
    """

    def __init__(self, kernels: Kernels) -> None:
        self._functions: dict[str, Callable[..., None]] = {
            name: kernels.function(f"rarkit_{name}", [_KINDS[kind] for kind in kinds if kind != " "])
            for name, kinds in _ARGUMENTS.items()
        }

    def modulate(self, x_BSD: Tensor, norm: Norm, table_PUSD: Tensor, row_B: Tensor | None, first: int) -> tuple[Tensor, Tensor]:
        """norm(x) · scale + shift, which lie at places ``first`` + 1 and ``first``, and the norm's statistics (R, 2)."""
        out_BSD, statistics_R2 = torch.empty_like(x_BSD), x_BSD.new_empty(x_BSD.shape[0] * x_BSD.shape[1], 2)
        shift_USD, scale_USD = table_PUSD[first], table_PUSD[first + 1]
        tensors = x_BSD, norm.weight_D, norm.bias_D, shift_USD, scale_USD, row_B, out_BSD, statistics_R2
        self._call("modulate", *tensors, *x_BSD.shape, norm.epsilon)
        return out_BSD, statistics_R2

    def modulate_backwards(
        self,
        gradient_BSD: Tensor,
        through_BSD: Tensor,
        x_BSD: Tensor,
        statistics_R2: Tensor,
        norm: Norm,
        table_PUSD: Tensor,
        row_B: Tensor | None,
        first: int,
        gradients_PUSD: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, plus ``through_BSD``, and of the norm's weight and bias; fills those of shift and scale."""
        out_BSD, weight_D, bias_D = torch.empty_like(x_BSD), torch.empty_like(norm.weight_D), torch.empty_like(norm.bias_D)
        given = gradient_BSD, through_BSD, x_BSD, statistics_R2, norm.weight_D, norm.bias_D, table_PUSD[first + 1], row_B
        filled = out_BSD, gradients_PUSD[first], gradients_PUSD[first + 1], weight_D, bias_D
        self._call("modulate_backwards", *given, *filled, *x_BSD.shape, table_PUSD.shape[1])
        return out_BSD, weight_D, bias_D

    def gate(self, x_BSD: Tensor, out_RD: Tensor, gate_USD: Tensor, row_B: Tensor | None, masks: Masks) -> Tensor:
        """x + gate · dropout(out): (B, S, D)."""
        sum_BSD = torch.empty_like(x_BSD)
        self._call("gate", x_BSD, out_RD, gate_USD, row_B, *masks.arguments, sum_BSD, *x_BSD.shape)
        return sum_BSD

    def gate_backwards(
        self,
        gradient_BSD: Tensor,
        out_RD: Tensor,
        gate_USD: Tensor,
        row_B: Tensor | None,
        masks: Masks,
        gate_gradient_USD: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The gradients of ``out_RD`` and of a bias added to it; fills that of the gate."""
        out_gradient_RD, bias_D = torch.empty_like(out_RD), out_RD.new_empty(out_RD.shape[1])
        given = gradient_BSD, out_RD, gate_USD, row_B, *masks.arguments
        self._call("gate_backwards", *given, out_gradient_RD, gate_gradient_USD, bias_D, *gradient_BSD.shape, gate_USD.shape[0])
        return out_gradient_RD, bias_D

    def activate(self, hidden_RH: Tensor, batch: int, masks: Masks) -> Tensor:
        """dropout(GELU(hidden)): (R, H). Turns ``hidden_RH`` into the slopes of it, which the backward pass needs in its place."""
        active_RH = torch.empty_like(hidden_RH)
        rows, width = hidden_RH.shape
        self._call("activate", hidden_RH, *masks.arguments, active_RH, batch, rows // batch, width)
        return active_RH

    def activate_backwards(self, gradient_RH: Tensor, slopes_RH: Tensor, batch: int) -> Tensor:
        """Turns the gradient of ``activate`` into that of what it was given, in place; returns that of a bias added to it."""
        rows, width = slopes_RH.shape
        bias_H = slopes_RH.new_empty(width)
        self._call("activate_backwards", gradient_RH, slopes_RH, bias_H, batch, rows // batch, width)
        return bias_H

    def attend(
        self, qkv_RM: Tensor, norms: tuple[Tensor, Tensor, float], shape: Shape, masks: Masks
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Causal attention with norms of queries and keys: (R, D), and what the backward pass needs beside ``qkv_RM``.

        That is the weights, S·(S + 1) / 2 of a head, negative where dropped, and the norms' statistics.

        Args:
            qkv_RM: (R, 3·N·K), queries, keys and values.
            norms: weight (2, K) and bias (2, K), the queries' first, and ε.
            shape: B, S, N and K.
            masks: of the weights.
        """
        batch, length, heads, width = shape
        room = -(-batch * heads // SIDE_BY_SIDE) * SIDE_BY_SIDE
        read_RD = qkv_RM.new_empty(batch * length, heads * width)
        shares, statistics = qkv_RM.new_empty(room, length * (length + 1) // 2), qkv_RM.new_empty(room, 2, length, 2)
        self._call("attend_forwards", qkv_RM, *norms, *masks.arguments, read_RD, shares, statistics, *shape)
        return read_RD, shares, statistics

    def attend_backwards(
        self,
        gradient_RD: Tensor,
        qkv_RM: Tensor,
        norms: tuple[Tensor, Tensor, float],
        shape: Shape,
        masks: Masks,
        shares: Tensor,
        statistics: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The gradients of what ``attend`` was given and of the norms (4, K): the queries' weight and bias, then the keys'."""
        qkv_gradient_RM, norms_4K = torch.empty_like(qkv_RM), qkv_RM.new_empty(4, shape.width)
        given = gradient_RD, qkv_RM, *norms, *masks.arguments, shares, statistics
        self._call("attend_backwards", *given, qkv_gradient_RM, norms_4K, *shape)
        return qkv_gradient_RM, norms_4K

    def _call(self, name: str, *arguments: Any) -> None:
        assert all(argument.is_contiguous() for argument in arguments if isinstance(argument, Tensor))
        given = [argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
        self._functions[name](*given, torch.get_num_threads())


@final
class Shape(NamedTuple):
    """B, S, N and K of attention."""

    batch: int
    length: int
    heads: int
    width: int


@functools.cache
def training_kernels() -> TrainingKernels | None:
    """The kernels; None where there are none, which is said where there could be."""
    capable = is_x86(torch.device("cpu")) and sys.platform.startswith("linux")
    if not capable or torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return None
    try:
        return TrainingKernels(compiled_kernels())
    except CapabilityError as error:
        what = "training with PyTorch's own kernels, which are slower here for short sequences"
        warnings.warn(f"{what}: {error}", RarkitWarning, stacklevel=2)
        return None
