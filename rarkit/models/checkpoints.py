"""Weights from a file into a model, without a second copy of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rarkit.errors import WeightsError
from rarkit.files.weights import portions

SHOWN = 3
"""How many names an error lists before it says how many more there are."""


def check_fit(path: str | Path, model: nn.Module, tensors: Mapping[str, Tensor], advice: Callable[[], str]) -> None:
    """Raises WeightsError, with all that is wrong and the advice (a sentence), unless a file's tensors are those of the model."""
    wanted = model.state_dict()
    complaints = []
    if missing := [name for name in wanted if name not in tensors]:
        complaints.append(f"missing: {_some(missing)}")
    if unexpected := [name for name in tensors if name not in wanted]:
        complaints.append(f"unexpected: {_some(unexpected)}")
    shared = [name for name in wanted if name in tensors]
    if misshapen := [
        f"{name} is {_shape(tensors[name])} for {_shape(wanted[name])}"
        for name in shared
        if tensors[name].shape != wanted[name].shape
    ]:
        complaints.append(f"misshapen: {_some(misshapen)}")
    if mistyped := [
        f"{name} is {tensors[name].dtype}"
        for name in shared
        if tensors[name].is_floating_point() != wanted[name].is_floating_point()
    ]:
        complaints.append(f"of a wrong dtype: {_some(mistyped)}")
    if complaints:
        raise WeightsError(f"{path} does not fit the model: {'; '.join(complaints)}. {advice()}".rstrip())


def fill(
    model: nn.Module, place: Path, tensors: dict[str, Tensor], *, device: str | torch.device, dtype: torch.dtype | None
) -> None:
    """Gives a model without memory the weights of a file that fits.

    On the CPU and without ``dtype`` they are the file's pages, mapped copy-on-write: that takes no memory. Otherwise the file is
    converted in portions, so that no second copy of it comes into being on the way.

    Args:
        model: on the meta device.
        place: the file itself.
        tensors: what ``read_tensors`` returned of it; emptied.
        device: where the weights go.
        dtype: the floating dtype of the weights; as stored where None.
    """
    if torch.device(device).type == "cpu" and all(tensor.dtype == _wanted(tensor, dtype) for tensor in tensors.values()):
        model.load_state_dict(tensors, assign=True)
        return
    tensors.clear()
    moved = {}
    for portion in portions(place):
        for name in list(portion):
            tensor = portion.pop(name)
            # A copy even where nothing changes: one tensor of the file holds the whole of it in memory.
            moved[name] = tensor.to(device=device, dtype=_wanted(tensor, dtype), copy=True)
    model.load_state_dict(moved, assign=True)


def _wanted(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "a scalar"
