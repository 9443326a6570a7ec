"""Loads weights from a file into a model without holding a second copy in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rarkit.errors import WeightsError
from rarkit.files.weights import portions

SHOWN = 3
"""Number of names that an error lists before it gives the number of remaining ones."""


def check_fit(path: str | Path, model: nn.Module, tensors: Mapping[str, Tensor], advice: Callable[[], str]) -> None:
    """Raises WeightsError, with every mismatch and the advice (a sentence), if a file's tensors do not fit the model."""
    expected = model.state_dict()
    complaints = []
    if missing := [name for name in expected if name not in tensors]:
        complaints.append(f"missing: {_some(missing)}")
    if unexpected := [name for name in tensors if name not in expected]:
        complaints.append(f"unexpected: {_some(unexpected)}")
    shared = [name for name in expected if name in tensors]
    if misshapen := [
        f"{name} is {_shape(tensors[name])} instead of {_shape(expected[name])}"
        for name in shared
        if tensors[name].shape != expected[name].shape
    ]:
        complaints.append(f"wrong shape: {_some(misshapen)}")
    if mistyped := [
        f"{name} is {tensors[name].dtype}"
        for name in shared
        if tensors[name].is_floating_point() != expected[name].is_floating_point()
    ]:
        complaints.append(f"wrong dtype: {_some(mistyped)}")
    if complaints:
        raise WeightsError(f"{path} does not fit the model: {'; '.join(complaints)}. {advice()}".rstrip())


def fill(
    model: nn.Module, place: Path, tensors: dict[str, Tensor], *, device: str | torch.device, dtype: torch.dtype | None
) -> None:
    """Loads a file's weights into a model on the meta device. The file must fit (``check_fit``).

    On the CPU without ``dtype``, the weights are the file's pages, mapped copy-on-write, which takes no memory. Otherwise the file
    is converted in portions, so that no second copy of it is held.

    Args:
        model: on the meta device.
        place: the file.
        tensors: what ``read_tensors`` returned for it; emptied.
        device: the device of the weights.
        dtype: the floating dtype of the weights; None keeps the stored one.
    """
    if torch.device(device).type == "cpu" and all(tensor.dtype == _target_dtype(tensor, dtype) for tensor in tensors.values()):
        model.load_state_dict(tensors, assign=True)
        return
    tensors.clear()
    moved = {}
    for portion in portions(place):
        for name in list(portion):
            tensor = portion.pop(name)
            # Copy even if nothing changes: a single uncopied tensor keeps the whole file in memory.
            moved[name] = tensor.to(device=device, dtype=_target_dtype(tensor, dtype), copy=True)
    model.load_state_dict(moved, assign=True)


def _target_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "a scalar"
