"""Held-out likelihood: the nats per token that a model needs for images along a fixed order.

Shape letters: B batch, N images, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rarkit.models.image_model import ImageModel


@torch.inference_mode()
def nats_per_image(
    model: ImageModel,
    tokens_NL: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    order_L: NDArray[np.int64],
    *,
    batch_size: int,
    device: str,
) -> NDArray[np.float64]:
    """Mean cross-entropy per token of each image, in nats: (N,) float64. The model must be in eval mode; classes are given."""
    order = torch.from_numpy(order_L).to(device)
    nats = []
    for start in range(0, len(tokens_NL), batch_size):
        tokens_BL = torch.from_numpy(tokens_NL[start : start + batch_size]).to(device)
        labels_B = torch.from_numpy(labels_N[start : start + batch_size]).to(device)
        logits_BLV = model(tokens_BL, labels_B, order)
        targets_BL = tokens_BL.gather(1, order.expand_as(tokens_BL))
        nats_BL = functional.cross_entropy(logits_BLV.float().transpose(1, 2), targets_BL, reduction="none")
        nats.append(nats_BL.double().mean(1).cpu().numpy())
    return np.concatenate(nats)
