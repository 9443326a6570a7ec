"""Torch devices by name."""

from __future__ import annotations

from rarkit.errors import CapabilityError


def resolve_device(device: str) -> str:
    """``"auto"`` is CUDA where there is any, else the CPU; anything else is itself. Raises CapabilityError if it cannot be used."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CapabilityError(f"device {device!r} cannot be used here ({reason}). Use cpu, cuda or auto.") from error
    return device
