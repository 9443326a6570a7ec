"""The blocks of all networks of this package. It imports torch alone, because exports copy it.

Shape letters: B batch, C channels, H and W height and width, D values of a patch.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

GROUP = 8
"""Channels that are normalised together, at least."""
MOST_GROUPS = 32


def norm(channels: int) -> nn.GroupNorm:
    """The normalisation before a convolution."""
    return nn.GroupNorm(min(MOST_GROUPS, channels // GROUP), channels)


def conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, side, padding=side // 2)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights of zero: a branch that ends in it begins as nothing."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


@final
class Residual(nn.Module):
    """Two normalised convolutions beside the identity, from some channels to others."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs)
        self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        branch_BCHW: Tensor = self.conv1(functional.silu(self.norm1(x_BCHW)))
        branch_BCHW = self.conv2(functional.silu(self.norm2(branch_BCHW)))
        skipped_BCHW: Tensor = self.skip(x_BCHW)
        return skipped_BCHW + branch_BCHW


def patches(images_BCHW: Tensor, side: int) -> Tensor:
    """Images cut into patches: (B, C, H, W) to (B, D, H / side, W / side), each patch flattened from (side, side, C)."""
    batch, channels, height, width = images_BCHW.shape
    cut = images_BCHW.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 3, 5, 1, 2, 4).reshape(batch, side * side * channels, height // side, width // side)


def joined(patches_BDHW: Tensor, side: int) -> Tensor:
    """The inverse of ``patches``: (B, D, H, W) to (B, C, H · side, W · side)."""
    batch, values, height, width = patches_BDHW.shape
    cut = patches_BDHW.reshape(batch, side, side, values // side**2, height, width)
    return cut.permute(0, 3, 4, 1, 5, 2).reshape(batch, values // side**2, height * side, width * side)
