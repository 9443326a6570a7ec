"""The convolutional autoencoder of ``start = "random"``: its encoder and its decoder. It imports torch alone, for exports.

Shape letters: B batch, C channels of an image, Z numbers of a token's vector, H and W height and width.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from rarkit_vq._layers import Residual, conv, norm

MULTIPLES = {2: (1, 2), 4: (1, 2, 2), 8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}
"""Channels at each resolution, from that of the pixels to that of the tokens, as multiples of the width; by downsampling."""


@final
class ConvolutionalEncoder(nn.Module):
    """Residual blocks at each resolution, and strided convolutions between them."""

    def __init__(self, downsample: int, width: int, blocks: int, channels: int, dimensions: int) -> None:
        super().__init__()
        widths = [width * multiple for multiple in MULTIPLES[downsample]]
        layers: list[nn.Module] = [conv(channels, widths[0])]
        for level, (before, after) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            if level:
                layers.append(nn.Conv2d(before, before, 4, stride=2, padding=1))
            layers += [Residual(before if block == 0 else after, after) for block in range(blocks)]
        self.layers = nn.ModuleList(layers)
        self.norm, self.out = norm(widths[-1]), conv(widths[-1], dimensions)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images in [-1, 1] to vectors (B, Z, H / downsample, W / downsample)."""
        x_BCHW = images_BCHW
        for layer in self.layers:
            x_BCHW = layer(x_BCHW)
        vectors_BZHW: Tensor = self.out(functional.silu(self.norm(x_BCHW)))
        return vectors_BZHW


@final
class ConvolutionalDecoder(nn.Module):
    """The encoder the other way round; a convolution follows each doubling of the pixels (the nearest), which leaves no pattern."""

    def __init__(self, downsample: int, width: int, blocks: int, channels: int, dimensions: int) -> None:
        super().__init__()
        widths = [width * multiple for multiple in MULTIPLES[downsample]][::-1]
        layers: list[nn.Module] = [conv(dimensions, widths[0])]
        for level, (before, after) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            if level:
                layers.append(nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv(before, before)))
            layers += [Residual(before if block == 0 else after, after) for block in range(blocks)]
        self.layers = nn.ModuleList(layers)
        self.norm, self.out = norm(widths[-1]), conv(widths[-1], channels)

    def forward(self, vectors_BZHW: Tensor) -> Tensor:
        """Vectors of codes (B, Z, H, W) to images (B, C, H · downsample, W · downsample), in [-1, 1] where they are good."""
        x_BCHW = vectors_BZHW
        for layer in self.layers:
            x_BCHW = layer(x_BCHW)
        images_BCHW: Tensor = self.out(functional.silu(self.norm(x_BCHW)))
        return images_BCHW
