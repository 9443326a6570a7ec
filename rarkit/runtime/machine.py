"""What this machine has, found out without torch, so that planning stays quick."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import final

GPU_WORTHY = 1e15
"""FLOPs from which a recipe is no work for processors: three hours at 100 GFLOP/s."""


@final
@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, by its maker's data sheet."""

    title: str
    rates: dict[str, float]
    """FLOP/s of dense matrix products, by the type that is multiplied."""
    bandwidth: float
    """Bytes of its memory read in a second."""
    memory: int
    """Bytes."""


GPUS = {
    "a100": Gpu("A100 80 GB", {"bfloat16": 312e12, "float32": 19.5e12}, 2.04e12, 80 * 10**9),
    "h100": Gpu("H100 80 GB", {"bfloat16": 989e12, "float32": 67e12}, 3.35e12, 80 * 10**9),
    "h200": Gpu("H200 141 GB", {"bfloat16": 989e12, "float32": 67e12}, 4.8e12, 141 * 10**9),
}


def has_cuda() -> bool:
    """Whether the driver of this machine shows a CUDA device (to this process: ``CUDA_VISIBLE_DEVICES`` may hide all)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def no_gpu() -> str | None:
    """Why torch finds no GPU here, and the cure; None if it does."""
    if not has_cuda():
        return "this machine shows no CUDA device, and this is no work for processors. Run it where there is one."
    if version("torch").endswith("+cpu"):
        return "there is a GPU, but PyTorch was installed without CUDA: install it anew as pytorch.org says."
    return None


def machine_description() -> str:
    """The machine, in a line."""
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    gpu = ", ".join(gpus) or "no GPU"
    return f"{processor}, {os.cpu_count()} cores, {gpu}, Python {platform.python_version()}, torch {torch.__version__}"
