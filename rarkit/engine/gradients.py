"""Clipping of gradients, exact where processes share them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from rarkit.engine.shards import local_part, whole


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Tensor:
    """Scales the gradients of parameters down to a norm (all together), and returns the norm that they had, on their device.

    Of sharded parameters it is the norm over all shards; torch's own ``clip_grad_norm_`` then returns a DTensor that shows each
    process the norm of its own shard. Processes that share parameters must all call this. Nothing waits for the device.

    Args:
        parameters: of one network, all of them sharded or none; those without a gradient are left out.
        max_norm: the largest norm; None leaves the gradients as they are.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = whole(get_total_norm(gradients))
    if gradients and max_norm is not None:
        # As torch computes it, so that one process has the bits of clip_grad_norm_.
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        torch._foreach_mul_([local_part(gradient) for gradient in gradients], factor)
    return norm
