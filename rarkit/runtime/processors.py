"""Which matrix products the processor does in hardware."""

from __future__ import annotations

import platform

import torch


def is_x86(device: torch.device) -> bool:
    """Whether the device is an x86 processor and this PyTorch has oneDNN."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64") and has_onednn


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether the device is an x86 processor without AVX-512, where PyTorch multiplies bfloat16 matrices in plain loops.

    These are about ten times slower than float32 products in training, and hundreds of times slower for large matrices.
    """
    return is_x86(device) and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
