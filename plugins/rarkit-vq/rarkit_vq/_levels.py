"""Between the levels of pixels and the numbers of networks. It imports torch alone, because exports copy it.

Shape letters: B batch, H, W, C height, width, channels of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIDDLE = 128.0
"""Levels 0 to 255 become numbers in [−1, 1): by a power of two, so that no level is rounded."""


def as_numbers(images_BHWC: Tensor) -> Tensor:
    """uint8 images (B, H, W, C) as a network takes them: (B, C, H, W) float32 in [−1, 1)."""
    return (images_BHWC.movedim(-1, 1).float() - MIDDLE) / MIDDLE


def as_levels(images_BCHW: Tensor) -> Tensor:
    """The inverse of ``as_numbers``: uint8, rounded to the nearest level."""
    levels_BCHW = (images_BCHW * MIDDLE + MIDDLE).round().clamp(0.0, 255.0)
    return levels_BCHW.to(torch.uint8).movedim(1, -1).contiguous()
