"""Linear layers laid out for decoding, where a few rows meet large weights and reading these is what takes the time.

Shape letters: R rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from rarkit.models.rar.decoding.native_kernels import CompiledLinear, Kernels
from rarkit.runtime.processors import is_x86, lacks_bfloat16

Project = Callable[[Tensor], Tensor]
"""(R, I) to (R, O)."""

ROWS_HINT = 64
"""How many rows oneDNN is told to lay weights out for; what it chooses then served 2 to 64 rows best."""

INT8_INPUTS = 32
"""PyTorch's int8 kernel reads whole registers, past the end of rows of other lengths: these are filled up with zeros."""


def rows_dtype(weight: Tensor) -> torch.dtype:
    """The type in which rows meet such weights: their own, but float32 for bfloat16 on x86 processors without AVX-512.

    FBGEMM's product of float32 rows and float16 weights takes the place of PyTorch's plain loops there.
    """
    widened = weight.dtype == torch.bfloat16 and lacks_bfloat16(weight.device)
    return torch.float32 if widened and "fbgemm" in torch.backends.quantized.supported_engines else weight.dtype


def projection(linear: nn.Linear, *, gelu: bool = False) -> Project:
    """The layer with its weights laid out for this machine, in their own precision: the same result up to the order of sums.

    With ``gelu``, the exact GELU after it. Rows are in ``rows_dtype``.

    On x86 processors that is oneDNN's blocked layout (a copy of the weights), which PyTorch's own compiler uses too; for bfloat16
    weights that meet float32 rows, FBGEMM's of float16, which holds any bfloat16 number from 2⁻¹⁴ to 65504 exactly, and smaller
    ones to 2⁻²⁵ (larger ones it cuts off, and PyTorch warns). Elsewhere it is the layer as it is.
    """
    weight_OI, bias_O = linear.weight.detach(), linear.bias.detach()
    activate = functional.gelu if gelu else _as_it_is
    if packs(weight_OI):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, ROWS_HINT)
        return lambda x_RI: _onednn(x_RI, packed, bias_O, gelu)
    if rows_dtype(weight_OI) != weight_OI.dtype:
        halves = torch.ops.quantized.linear_prepack_fp16(weight_OI.float(), bias_O.float())
        return lambda x_RI: activate(torch.ops.quantized.linear_dynamic_fp16(x_RI, halves))
    return lambda x_RI: activate(functional.linear(x_RI, weight_OI, bias_O))


def product(linear: nn.Linear, x_RI: Tensor) -> Tensor:
    """The layer's output (R, O) for many rows, without a lasting copy of its weights."""
    weight_OI, bias_O = linear.weight.detach().to(x_RI.dtype), linear.bias.detach().to(x_RI.dtype)
    return _onednn(x_RI, weight_OI, bias_O, False) if packs(weight_OI) else functional.linear(x_RI, weight_OI, bias_O)


def _onednn(x_RI: Tensor, weight_OI: Tensor, bias_O: Tensor, gelu: bool) -> Tensor:
    activation: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
    out_RO: Tensor = torch.ops.mkldnn._linear_pointwise(x_RI, weight_OI, bias_O, *activation)
    return out_RO


def _as_it_is(x_RO: Tensor) -> Tensor:
    return x_RO


def packs(weight_OI: Tensor) -> bool:
    """Whether oneDNN has a layout and a product for these weights here."""
    known = weight_OI.dtype == torch.float32 or (weight_OI.dtype == torch.bfloat16 and not lacks_bfloat16(weight_OI.device))
    return known and is_x86(weight_OI.device) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def quantised(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 weights (O, I), and the scale of each output (O,) float32: ``weight ≈ int8 · scale``."""
    scale_O = weight_OI.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight_OI.float() / scale_O[:, None]).round().clamp(-127, 127).to(torch.int8), scale_O


def int8_projection(linear: nn.Linear, *, gelu: bool = False) -> Project:
    """The layer with int8 weights (``quantised``), multiplied in bfloat16 by PyTorch's own kernel. On a CPU alone."""
    weight_OI, scale_O = quantised(linear.weight.detach())
    scale_O, bias_O = scale_O.bfloat16(), linear.bias.detach().bfloat16()
    missing = -weight_OI.shape[1] % INT8_INPUTS
    weight_OI = functional.pad(weight_OI, (0, missing))

    def project(x_RI: Tensor) -> Tensor:
        rows_RI = x_RI.bfloat16()
        rows_RI = functional.pad(rows_RI, (0, missing)) if missing else rows_RI
        out_RO: Tensor = torch._weight_int8pack_mm(rows_RI, weight_OI, scale_O)
        out_RO = out_RO.add_(bias_O).to(x_RI.dtype)
        return functional.gelu(out_RO) if gelu else out_RO

    return project


def compiled_projection(kernels: Kernels, linear: nn.Linear, *, int8: bool = False, gelu: bool = False) -> Project:
    """The layer for float32 rows, with its weights in their own precision (float32 or bfloat16), or as int8 (``quantised``)."""
    weight_OI, scale_O = quantised(linear.weight.detach()) if int8 else (linear.weight.detach(), None)
    return CompiledLinear(kernels, weight_OI, scale_O, linear.bias.detach(), gelu=gelu)
