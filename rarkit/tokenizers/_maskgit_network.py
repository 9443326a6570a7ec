"""The convolutional network of MaskGIT-VQGAN, with the released tensor names.

Shape letters: B batch, C channels, H, W height and width, Z latent channels, V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS, EPSILON = 32, 1e-6


def _convolution(inputs: int, outputs: int, size: int = 3, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=EPSILON)


@final
class Residual(nn.Module):
    """Norm, SiLU and convolution, twice. If the width changes, the 1×1 shortcut is applied to the branch, as in the release."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), _convolution(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs), _convolution(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = _convolution(outputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        branch = self.conv1(functional.silu(self.norm1(x_BCHW), inplace=True))
        branch = self.conv2(functional.silu(self.norm2(branch), inplace=True))
        out_BCHW: Tensor = branch + (self.nin_shortcut(branch) if hasattr(self, "nin_shortcut") else x_BCHW)
        return out_BCHW


@final
class Level(nn.Module):
    """Residual blocks at one resolution, optionally followed by upsampling and a convolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, upsamples: bool = False) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(inputs if index == 0 else outputs, outputs) for index in range(blocks))
        if upsamples:
            self.upsample_conv = _convolution(outputs, outputs, bias=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for block in self.block:
            x_BCHW = block(x_BCHW)
        if hasattr(self, "upsample_conv"):
            x_BCHW = self.upsample_conv(functional.interpolate(x_BCHW, scale_factor=2, mode="nearest"))
        return x_BCHW


@final
class Encoder(nn.Module):
    """From images in [0, 1] (B, 3, H, W) to latents (B, Z, H/f, W/f), f = 2^(levels − 1)."""

    def __init__(self, channels: int, width: int, multipliers: Sequence[int], blocks: int, latent: int) -> None:
        super().__init__()
        widths = [width, *(width * multiplier for multiplier in multipliers)]
        self.conv_in = _convolution(channels, width)
        self.down = nn.ModuleList(Level(inputs, outputs, blocks) for inputs, outputs in pairwise(widths))
        self.mid = nn.ModuleList(Residual(widths[-1], widths[-1]) for _ in range(blocks))
        self.norm_out, self.conv_out = _norm(widths[-1]), _convolution(widths[-1], latent, 1, bias=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_in(x_BCHW)
        for index, level in enumerate(self.down):
            x_BCHW = level(x_BCHW if index == 0 else functional.avg_pool2d(x_BCHW, 2))
        for block in self.mid:
            x_BCHW = block(x_BCHW)
        latents: Tensor = self.conv_out(functional.silu(self.norm_out(x_BCHW), inplace=True))
        return latents


@final
class MaskGITDecoder(nn.Module):
    """From latents (B, Z, H, W) to images (B, C, f·H, f·W), not clamped to [0, 1]; f = 2^(levels − 1)."""

    def __init__(self, channels: int, width: int, multipliers: Sequence[int], blocks: int, latent: int) -> None:
        super().__init__()
        widths = [*(width * multiplier for multiplier in multipliers), width * multipliers[-1]]
        self.conv_in = _convolution(latent, widths[-1], bias=True)
        self.mid = nn.ModuleList(Residual(widths[-1], widths[-1]) for _ in range(blocks))
        self.up = nn.ModuleList(
            Level(widths[index + 1], widths[index], blocks, upsamples=index > 0) for index in range(len(multipliers))
        )
        self.norm_out, self.conv_out = _norm(widths[0]), _convolution(widths[0], channels, bias=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_in(x_BCHW)
        for block in self.mid:
            x_BCHW = block(x_BCHW)
        for level in reversed(self.up):
            x_BCHW = level(x_BCHW)
        images: Tensor = self.conv_out(functional.silu(self.norm_out(x_BCHW), inplace=True))
        return images


@final
class Quantizer(nn.Module):
    """The codebook (V, Z)."""

    def __init__(self, codes: int, latent: int) -> None:
        super().__init__()
        # Pass the tensor: if nn.Embedding draws the weights on the meta device, torch loads its compiler, which takes seconds.
        self.embedding = nn.Embedding(codes, latent, _weight=torch.empty(codes, latent))


@final
class MaskGITNetwork(nn.Module):
    """Encoder, codebook and decoder. Faster in ``torch.channels_last`` memory format than in the contiguous one."""

    def __init__(self, channels: int, width: int, multipliers: Sequence[int], blocks: int, latent: int, codes: int) -> None:
        super().__init__()
        self.encoder = Encoder(channels, width, multipliers, blocks, latent)
        self.decoder = MaskGITDecoder(channels, width, multipliers, blocks, latent)
        self.quantize = Quantizer(codes, latent)
