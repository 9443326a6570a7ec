"""The networks of ``start = "kmeans"``: patches in, patches out, and convolutions beside that. It imports torch alone, for exports.

Before training both do what a codebook of patches does: the branches end in layers of zeros.

Shape letters: B batch, C channels of an image, D values of a patch, H and W height and width.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from rarkit_vq._layers import Residual, conv, joined, patches, zeroed

TOKEN_WIDTH = 4
"""Channels at the resolution of the tokens, as a multiple of the width, which is that of the pixels."""


@final
class PatchEncoder(nn.Module):
    """The patches, and a branch that sees those around."""

    def __init__(self, downsample: int, width: int, blocks: int, channels: int) -> None:
        super().__init__()
        self.downsample = downsample
        values, inner = downsample**2 * channels, TOKEN_WIDTH * width
        self.into = conv(values, inner, 1)
        self.blocks = nn.ModuleList(Residual(inner, inner) for _ in range(blocks))
        self.out = zeroed(conv(inner, values, 1))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images in [-1, 1] to vectors (B, D, H / downsample, W / downsample)."""
        patches_BDHW = patches(images_BCHW, self.downsample)
        x_BCHW = self.into(patches_BDHW)
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        branch_BDHW: Tensor = self.out(functional.silu(x_BCHW))
        return patches_BDHW + branch_BDHW.float()


@final
class PatchDecoder(nn.Module):
    """The patches of the codes, and a branch that works on tokens and then on pixels, where it sees across the borders."""

    def __init__(self, downsample: int, width: int, blocks: int, channels: int) -> None:
        super().__init__()
        self.downsample = downsample
        values, inner = downsample**2 * channels, TOKEN_WIDTH * width
        self.into = conv(values, inner, 1)
        self.blocks = nn.ModuleList(Residual(inner, inner) for _ in range(blocks))
        self.spread = conv(inner, downsample**2 * width, 1)
        self.pixels = conv(channels, width)
        self.pixel_blocks = nn.ModuleList([Residual(width, width)])
        self.out = zeroed(conv(width, channels))

    def forward(self, vectors_BDHW: Tensor) -> Tensor:
        """Vectors of codes (B, D, H, W) to images (B, C, H · downsample, W · downsample), in [-1, 1] where they are good."""
        x_BCHW = self.into(vectors_BDHW)
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        images_BCHW = joined(vectors_BDHW, self.downsample)
        x_BCHW = functional.pixel_shuffle(self.spread(functional.silu(x_BCHW)), self.downsample) + self.pixels(images_BCHW)
        for block in self.pixel_blocks:
            x_BCHW = block(x_BCHW)
        branch_BCHW: Tensor = self.out(functional.silu(x_BCHW))
        return images_BCHW + branch_BCHW.float()
