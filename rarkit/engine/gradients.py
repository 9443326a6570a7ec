"""Clipping of gradients, exact where processes share them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from rarkit.engine.shards import local_part, whole


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Tensor:
    """Scales the gradients of parameters down to a norm (all together), and returns the norm that they had, on their device.

    Of sharded parameters it is the norm over all shards; torch's own ``clip_grad_norm_`` then returns a DTensor that shows each
    process the norm of its own shard. Processes that share parameters must all call this. Nothing waits for the device.

    Args:
        parameters: those without a gradient are left out.
        max_norm: the largest norm; None or infinity leaves the gradients as they are.
    """
    meshes: defaultdict[DeviceMesh | None, list[Tensor]] = defaultdict(list)
    for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
        meshes[gradient.device_mesh if isinstance(gradient, DTensor) else None].append(gradient)
    # Tensors of different meshes cannot be stacked.
    norms = [whole(get_total_norm(gradients)) for gradients in meshes.values()]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
    if meshes and max_norm is not None and max_norm != math.inf:
        # As torch computes it, so that one process has the bits of clip_grad_norm_.
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        torch._foreach_mul_([local_part(gradient) for gradients in meshes.values() for gradient in gradients], factor)
    return norm
