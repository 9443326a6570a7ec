"""Torch devices by name."""

from __future__ import annotations

from rarkit.errors import CapabilityError


def resolve_device(device: str) -> str:
    """The device to use: for ``"auto"``, ``"cuda"`` if there is a CUDA device and ``"cpu"`` otherwise; other names as given.

    Raises:
        CapabilityError: torch cannot use the device on this machine.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CapabilityError(f"device {device!r} cannot be used here ({reason}). Use cpu, cuda or auto.") from error
    return device
