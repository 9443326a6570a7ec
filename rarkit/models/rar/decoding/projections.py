"""Linear layers for decoding, where a few rows are multiplied by large weights and the time goes into reading the weights.

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
"""The number of rows given to oneDNN to choose a weight layout; its choice for 64 was the fastest for 2 to 64 rows."""

INT8_INPUTS = 32
"""PyTorch's int8 kernel reads whole registers, past the end of other row lengths, so rows are zero-padded to a multiple."""


def rows_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of rows for these weights: that of the weights, but float32 for bfloat16 on x86 without AVX-512.

    There, FBGEMM's product of float32 rows and float16 weights replaces PyTorch's plain loops.
    """
    widened = weight.dtype == torch.bfloat16 and lacks_bfloat16(weight.device)
    return torch.float32 if widened and "fbgemm" in torch.backends.quantized.supported_engines else weight.dtype


def projection(linear: nn.Linear, *, gelu: bool = False) -> Project:
    """The layer with its weights in the best layout for this machine, at full precision: equal up to the order of sums.

    Rows are in ``rows_dtype``. With ``gelu``, the exact GELU follows.

    On x86 processors this is oneDNN's blocked layout (a copy of the weights), which PyTorch's own compiler also uses. For bfloat16
    weights and float32 rows it is FBGEMM's float16 layout, which is exact for bfloat16 numbers from 2⁻¹⁴ to 65504, keeps smaller
    ones to within 2⁻²⁵, and clips larger ones (PyTorch warns). On other devices the layer is used unchanged.
    """
    weight_OI, bias_O = linear.weight.detach(), linear.bias.detach()
    activate = functional.gelu if gelu else _identity
    if packs(weight_OI):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, ROWS_HINT)
        return lambda x_RI: _onednn(x_RI, packed, bias_O, gelu)
    if rows_dtype(weight_OI) != weight_OI.dtype:
        halves = torch.ops.quantized.linear_prepack_fp16(weight_OI.float(), bias_O.float())
        return lambda x_RI: activate(torch.ops.quantized.linear_dynamic_fp16(x_RI, halves))
    return lambda x_RI: activate(functional.linear(x_RI, weight_OI, bias_O))


def product(linear: nn.Linear, x_RI: Tensor) -> Tensor:
    """The layer's output (R, O) for many rows, without keeping a copy of its weights."""
    weight_OI, bias_O = linear.weight.detach().to(x_RI.dtype), linear.bias.detach().to(x_RI.dtype)
    return _onednn(x_RI, weight_OI, bias_O, False) if packs(weight_OI) else functional.linear(x_RI, weight_OI, bias_O)


def _onednn(x_RI: Tensor, weight_OI: Tensor, bias_O: Tensor, gelu: bool) -> Tensor:
    activation: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
    out_RO: Tensor = torch.ops.mkldnn._linear_pointwise(x_RI, weight_OI, bias_O, *activation)
    return out_RO


def _identity(x_RO: Tensor) -> Tensor:
    return x_RO


def packs(weight_OI: Tensor) -> bool:
    """Whether oneDNN has a packed layout and a product for these weights on this machine."""
    known = weight_OI.dtype == torch.float32 or (weight_OI.dtype == torch.bfloat16 and not lacks_bfloat16(weight_OI.device))
    return known and is_x86(weight_OI.device) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def quantised(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises symmetrically: int8 weights (O, I) and a float32 scale per output (O,), with ``weight ≈ int8 · scale``."""
    scale_O = weight_OI.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight_OI.float() / scale_O[:, None]).round().clamp(-127, 127).to(torch.int8), scale_O


def int8_projection(linear: nn.Linear, *, gelu: bool = False) -> Project:
    """The layer with int8 weights (``quantised``), multiplied in bfloat16 by PyTorch's own kernel. CPU only."""
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
    """The layer for float32 rows, with weights in their own dtype (float32 or bfloat16) or int8 (``quantised``)."""
    weight_OI, scale_O = quantised(linear.weight.detach()) if int8 else (linear.weight.detach(), None)
    return CompiledLinear(kernels, weight_OI, scale_O, linear.bias.detach(), gelu=gelu)
