"""Held-out likelihood: the nats per token that a model needs for images along a fixed order.

Shape letters: B batch, N images, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from rarkit.errors import UserError
from rarkit.registry.inputs import scan_order, whole
from rarkit.runtime.devices import in_float64


@torch.inference_mode()
def nats_per_image(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    tokens_NL: ArrayLike | Tensor,
    labels_N: ArrayLike | Tensor,
    order_L: ArrayLike | Tensor,
    *,
    batch_size: int,
    device: str | torch.device = "cpu",
) -> NDArray[np.float64]:
    """Mean cross-entropy per token of each image along one order, in nats.

    Times −L, it is the log-likelihood of the image's tokens, given its class.

    Args:
        model: a model of rarkit's, or any function of (tokens_BL, labels_B, orders_BL) that returns logits (B, L, V) in which
            entry t predicts the token visited at step t. A module is in eval mode meanwhile.
        tokens_NL: (N, L) integers, raster grids of codes.
        labels_N: (N,) integers, the classes.
        order_L: (L,) integers, the raster index visited at each step.
        batch_size: images per forward pass, at least 1.
        device: where the model is.

    Returns:
        (N,) float64.

    Raises:
        UserError: tokens or labels have another shape or dtype, or the logits do.
        GridError: the order does not visit each cell once.
    """
    whole("batch_size", batch_size, 1)
    order = torch.from_numpy(scan_order(order_L.cpu().numpy() if isinstance(order_L, Tensor) else order_L)).to(device)
    tokens, labels = _array(tokens_NL), _array(labels_N)
    integers = all(np.issubdtype(array.dtype, np.integer) for array in (tokens, labels))
    if not integers or tokens.ndim != 2 or tokens.shape[1] != len(order) or labels.shape != tokens.shape[:1]:
        raise UserError(
            f"tokens are {tokens.dtype} {tokens.shape} and labels {labels.dtype} {labels.shape}; pass integers (N, {len(order)}) "
            "and (N,): a raster grid of codes and a class per image"
        )
    nats = []
    with _evaluating(model):
        for start in range(0, len(tokens), batch_size):
            part = slice(start, start + batch_size)
            tokens_BL, labels_B = (torch.from_numpy(array[part].astype(np.int64)).to(device) for array in (tokens, labels))
            orders_BL = order.expand_as(tokens_BL)
            logits_BLV = model(tokens_BL, labels_B, orders_BL)
            if logits_BLV.ndim != 3 or logits_BLV.shape[:2] != tokens_BL.shape:
                raise UserError(f"the model returns logits {tuple(logits_BLV.shape)}; they must be {(*tokens_BL.shape, 'V')}")
            targets_BL = tokens_BL.gather(1, orders_BL)
            nats_BL = functional.cross_entropy(logits_BLV.float().transpose(1, 2), targets_BL, reduction="none")
            nats.append(in_float64(nats_BL).mean(1).cpu().numpy())
    return np.concatenate([np.empty(0), *nats])


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


@contextmanager
def _evaluating(model: object) -> Iterator[None]:
    """Around calls of a module: it is in eval mode, and then in the mode that it was in."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
