"""What hardware this machine has, read without torch so that planning stays fast."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, final

GPU_WORTHY = 1e15
"""FLOPs above which a recipe needs a GPU: three hours of CPU time at 100 GFLOP/s."""

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
CAPABILITY_MAJOR, AMPERE = 75, 8
"""CUDA's number of the attribute that holds the compute capability, and the first with bfloat16."""


@final
@dataclass(frozen=True)
class Gpu:
    """A GPU model; the numbers are those of its data sheet."""

    title: str
    rates: dict[str, float]
    """FLOP/s of dense matrix products, by data type."""
    bandwidth: float
    """Memory bandwidth in bytes per second."""
    memory: int
    """Memory in bytes."""


GPUS = {
    "a100": Gpu("A100 80 GB", {"bfloat16": 312e12, "float32": 19.5e12}, 2.04e12, 80 * 10**9),
    "h100": Gpu("H100 80 GB", {"bfloat16": 989e12, "float32": 67e12}, 3.35e12, 80 * 10**9),
    "h200": Gpu("H200 141 GB", {"bfloat16": 989e12, "float32": 67e12}, 4.8e12, 141 * 10**9),
}


def has_cuda() -> bool:
    """Whether the driver shows this process a CUDA device (``CUDA_VISIBLE_DEVICES`` can hide them all)."""
    return gpu_count() > 0


def gpu_count() -> int:
    """The number of CUDA devices that the driver shows this process."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def host_memory() -> int:
    """Bytes of memory that there are for this process: the machine's, or its container's if those are fewer."""
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    allowed = [int(text) for text in (path.read_text().strip() for path in limits if path.exists()) if text.isdecimal()]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *allowed])


def auto_precision(device: str) -> Literal["float32", "bfloat16"]:
    """What ``precision = "auto"`` stands for on a device: bfloat16 if it has instructions for it, else float32.

    These are GPUs from Nvidia's Ampere on, and processors with AVX-512-BF16 or AMX under Linux.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        return "bfloat16" if _cuda_has_bfloat16() else "float32"
    return "bfloat16" if kind == "cpu" and not BFLOAT16_FLAGS.isdisjoint(cpu_flags()) else "float32"


def emulates_bfloat16() -> bool:
    """Whether this is known to be an x86 processor without AVX-512, on which bfloat16 products take about ten times as long."""
    flags = cpu_flags()
    return "sse2" in flags and "avx512f" not in flags


def sums_bfloat16_apart() -> bool:
    """Whether this is known to be an x86 processor with AVX-512 but no bfloat16 instructions.

    There, oneDNN sums bfloat16 products in float32 memory beside the output.
    """
    flags = cpu_flags()
    return "avx512f" in flags and BFLOAT16_FLAGS.isdisjoint(flags)


def here() -> Literal["cuda", "cpu"]:
    """The device that a run takes on this machine unless told otherwise."""
    return "cpu" if no_gpu() else "cuda"


def _cuda_has_bfloat16() -> bool:
    capability = ctypes.c_int(0)
    if has_cuda():
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuDeviceGetAttribute(ctypes.byref(capability), CAPABILITY_MAJOR, 0) == 0 and capability.value >= AMPERE
    # A GPU without Nvidia's driver.
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def gpu_name() -> str:
    """What the driver calls the first CUDA device; the machine must have one."""
    driver, name = ctypes.CDLL("libcuda.so.1"), ctypes.create_string_buffer(256)
    driver.cuInit(0)
    driver.cuDeviceGetName(name, len(name), 0)
    return name.value.decode()


def peak_rate(device: str, precision: str) -> float | None:
    """FLOP/s of dense matrix products on a torch device by the data sheet of its GPU; None if that is not known.

    The machine's GPUs are taken to be like its first.
    """
    gpu = gpu_called(gpu_name()) if device.startswith("cuda") and has_cuda() else None
    return None if gpu is None else gpu.rates.get(precision)


def gpu_called(name: str) -> Gpu | None:
    """The entry of ``GPUS`` for what a driver calls a GPU; None if there is none, or for a slower form of it, or a part (MIG)."""
    words = set(re.findall(r"[A-Z0-9]+", name.upper()))
    found = next((model for model in GPUS if model.upper() in words), None)
    # An A100 computes as fast on a PCIe card; its successors do not.
    slower = {"MIG"} if found == "a100" else {"MIG", "PCIE", "NVL"}
    return GPUS[found] if found is not None and words.isdisjoint(slower) else None


def cpu_flags() -> frozenset[str]:
    """The instruction sets of this processor as Linux names them; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def no_gpu() -> str | None:
    """Why torch cannot use a GPU here, and the cure; None if it can."""
    if not has_cuda():
        return "this machine has no CUDA device, and the work is too much for a CPU. Run it on a machine with a GPU."
    if version("torch").endswith("+cpu"):
        return "there is a GPU, but PyTorch was installed without CUDA. Reinstall it as pytorch.org describes."
    return None


def machine_description() -> str:
    """One line about the machine: processor, cores, GPUs, Python and torch versions."""
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    gpu = ", ".join(gpus) or "no GPU"
    return f"{processor}, {os.cpu_count()} cores, {gpu}, Python {platform.python_version()}, torch {torch.__version__}"
