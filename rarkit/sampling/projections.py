"""Linear layers laid out for decoding, where a few rows meet large weights and reading these is what takes the time.

Shape letters: R rows, I inputs, O outputs.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Project = Callable[[Tensor], Tensor]
"""(R, I) to (R, O)."""

ROWS_HINT = 64
"""How many rows oneDNN is told to lay weights out for; what it chooses then served 2 to 64 rows best."""

INT8_INPUTS = 32
"""PyTorch's int8 kernel reads whole registers, past the end of rows of other lengths: these are filled up with zeros."""


def projection(linear: nn.Linear, *, gelu: bool = False) -> Project:
    """The layer with its weights laid out for this machine, in their own precision: the same result up to the order of sums.

    With ``gelu``, the exact GELU after it.

    On x86 processors that is oneDNN's blocked layout (a copy of the weights), which PyTorch's own compiler uses too; elsewhere the
    layer as it is.
    """
    weight_OI, bias_O = linear.weight.detach(), linear.bias.detach()
    if not packs(weight_OI):
        activate = functional.gelu if gelu else _as_it_is
        return lambda x_RI: activate(functional.linear(x_RI, weight_OI, bias_O))
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, ROWS_HINT)

    def project(x_RI: Tensor) -> Tensor:
        return _onednn(x_RI, packed, bias_O, gelu)

    return project


def product(linear: nn.Linear, x_RI: Tensor) -> Tensor:
    """The layer's output (R, O) for many rows, without a copy of its weights."""
    weight_OI = linear.weight.detach()
    return (
        _onednn(x_RI, weight_OI, linear.bias.detach(), False)
        if packs(weight_OI)
        else functional.linear(x_RI, weight_OI, linear.bias)
    )


def _onednn(x_RI: Tensor, weight_OI: Tensor, bias_O: Tensor, gelu: bool) -> Tensor:
    activation: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
    out_RO: Tensor = torch.ops.mkldnn._linear_pointwise(x_RI, weight_OI, bias_O, *activation)
    return out_RO


def _as_it_is(x_RO: Tensor) -> Tensor:
    return x_RO


def packs(weight_OI: Tensor) -> bool:
    """Whether ``projection`` copies these weights into a layout of their own."""
    return (
        weight_OI.device.type == "cpu"
        and weight_OI.dtype in (torch.float32, torch.bfloat16)
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def quantised(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 weights (O, I), and the scale of each output (O,) float32: ``weight ≈ int8 · scale``."""
    scale_O = weight_OI.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight_OI.float() / scale_O[:, None]).round().clamp(-127, 127).to(torch.int8), scale_O


def int8_projection(linear: nn.Linear, *, gelu: bool = False) -> Project:
    """The layer with int8 weights (``quantised``), multiplied with bfloat16 rows by PyTorch's own kernel. On a CPU alone."""
    weight_OI, scale_O = quantised(linear.weight.detach())
    scale_O, bias_O = scale_O.bfloat16(), linear.bias.detach().bfloat16()
    missing = -weight_OI.shape[1] % INT8_INPUTS
    weight_OI = functional.pad(weight_OI, (0, missing))

    def project(x_RI: Tensor) -> Tensor:
        x_RI = functional.pad(x_RI, (0, missing)) if missing else x_RI
        out_RO: Tensor = torch._weight_int8pack_mm(x_RI, weight_OI, scale_O)
        out_RO = out_RO.add_(bias_O)
        return functional.gelu(out_RO) if gelu else out_RO

    return project
