"""What the processor at hand can multiply."""

from __future__ import annotations

import platform

import torch


def is_x86(device: torch.device) -> bool:
    """Whether that is an x86 processor, on which this PyTorch has oneDNN."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64") and has_onednn


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether that is an x86 processor without AVX-512: PyTorch multiplies matrices of bfloat16 in plain loops there.

    Those are some ten times slower than its products of float32 in training, and hundreds of times where matrices are large.
    """
    return is_x86(device) and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
