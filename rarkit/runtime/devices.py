"""Torch devices by name, and what they can hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rarkit.errors import CapabilityError

if TYPE_CHECKING:
    from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that know no float64."""
_COMMON = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_known(device: str) -> None:
    """Refuses what is the name of no device; only of rare ones torch is asked, and with it whether it can be used.

    Raises:
        CapabilityError: as ``resolve_device``.
    """
    if not isinstance(device, str) or _COMMON.fullmatch(device) is None:
        resolve_device(device)


def resolve_device(device: str, *, draws: bool = False) -> str:
    """The device to use: for ``"auto"``, CUDA if there is such a device, else the CPU; other names as given.

    Args:
        device: as in ``torch.device``, or ``"auto"``.
        draws: nothing is trained; ``"auto"`` then takes Apple's GPU (``"mps"``) before the CPU.

    Raises:
        CapabilityError: torch cannot use the device on this machine.
    """
    import torch

    if isinstance(device, torch.device):
        device = str(device)
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if draws and torch.backends.mps.is_available() else "cpu"
    try:
        # Of None and of numbers, torch makes devices.
        torch.zeros(1, device=device if isinstance(device, str) else f"no name: {device!r:.80}")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        usable = [name for name, there in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if there.is_available()]
        choice = ", ".join(["cpu", *usable]) + " or auto"
        raise CapabilityError(f"device {device!r} cannot be used here ({reason}). Use {choice}.") from error
    return device


def in_float64(tensor: Tensor) -> Tensor:
    """A tensor in float64: on its device, or on the CPU if the device has no float64."""
    return (tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor).double()
