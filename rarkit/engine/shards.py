"""Tensors of which each process holds a part (DTensors), seen as this process's part or as a whole."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def local_part(tensor: Tensor) -> Tensor:
    """The part of a tensor in this process, sharing its memory; the tensor itself if it is not shared between processes."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts, gathered from the processes that share it, which must all call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, values: Tensor) -> Tensor:
    """Values that are the same and whole in each process, laid out as a tensor is. Communicates nothing."""
    if not isinstance(tensor, DTensor):
        return values
    mesh = tensor.device_mesh
    return DTensor.from_local(values, mesh, [Replicate()] * mesh.ndim, run_check=False).redistribute(mesh, tensor.placements)
