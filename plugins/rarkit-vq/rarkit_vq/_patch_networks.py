"""The networks of ``start = "kmeans"``: patches in, patches out, and convolutions beside that. It imports torch alone, for exports.

Before training both do what a codebook of patches does: the branches end in layers of zeros.

Shape letters: B batch, C channels of an image, D values of a patch, H and W height and width.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from rarkit_vq._layers import Residual, conv, joined, patches, zeroed

TOKENS, PIXELS = 2.0, 0.5
"""Channels at the resolution of the tokens and of the pixels, as multiples of the width. The decoder learns most from the tokens
around, and there are far more pixels than tokens."""


@final
class PatchEncoder(nn.Module):
    """The patches, and a branch that sees those around."""

    def __init__(self, downsample: int, width: int, blocks: int, channels: int) -> None:
        super().__init__()
        self.downsample = downsample
        values, inner = downsample**2 * channels, int(TOKENS * width)
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
    """The patches of the codes, and a branch that works on tokens, and at its end on pixels, where it sees across their borders."""

    def __init__(self, downsample: int, width: int, blocks: int, channels: int) -> None:
        super().__init__()
        self.downsample = downsample
        values, inner = downsample**2 * channels, int(TOKENS * width)
        self.into = conv(values, inner, 1)
        self.blocks = nn.ModuleList(Residual(inner, inner) for _ in range(2 * blocks))
        outer = int(PIXELS * width)
        self.spread = conv(inner, downsample**2 * outer, 1)
        self.pixels = conv(channels, outer)
        self.out = zeroed(conv(outer, channels))

    def forward(self, vectors_BDHW: Tensor) -> Tensor:
        """Vectors of codes (B, D, H, W) to images (B, C, H · downsample, W · downsample), in [-1, 1] where they are good."""
        x_BCHW = self.into(vectors_BDHW)
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        images_BCHW = joined(vectors_BDHW, self.downsample)
        x_BCHW = functional.pixel_shuffle(self.spread(functional.silu(x_BCHW)), self.downsample) + self.pixels(images_BCHW)
        branch_BCHW: Tensor = self.out(functional.silu(x_BCHW))
        return images_BCHW + branch_BCHW.float()
