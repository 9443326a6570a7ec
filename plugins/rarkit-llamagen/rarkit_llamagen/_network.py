"""The network of LlamaGen's VQ tokenizers, with the released tensor names.

Shape letters: B batch, C channels, H, W height and width, X places of the grid, Z latent channels, V codebook size, D numbers of
a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS, EPSILON = 32, 1e-6
CHANNELS = 3


def _convolution(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=EPSILON)


@final
class Residual(nn.Module):
    """Norm, SiLU and convolution, twice. If the width changes, a 1×1 shortcut is applied to the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), _convolution(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs), _convolution(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = _convolution(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        branch = self.conv1(functional.silu(self.norm1(x_BCHW), inplace=True))
        branch = self.conv2(functional.silu(self.norm2(branch), inplace=True))
        out_BCHW: Tensor = branch + (self.nin_shortcut(x_BCHW) if hasattr(self, "nin_shortcut") else x_BCHW)
        return out_BCHW


@final
class Attention(nn.Module):
    """Attention between all places, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (_convolution(channels, channels, 1) for _ in range(4))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        normed = self.norm(x_BCHW)
        q_BXC, k_BXC, v_BXC = (layer(normed).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        read_BXC = functional.scaled_dot_product_attention(q_BXC, k_BXC, v_BXC)
        out_BCHW: Tensor = x_BCHW + self.proj_out(read_BXC.transpose(1, 2).reshape(x_BCHW.shape))
        return out_BCHW


@final
class Down(nn.Module):
    """Halves height and width; the padding is on the right and below alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.conv(functional.pad(x_BCHW, (0, 1, 0, 1)))
        return out_BCHW


@final
class Up(nn.Module):
    """Doubles height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _convolution(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.conv(functional.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))
        return out_BCHW


@final
class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention at the lowest, and the way to the next resolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, attends: bool, next_level: type[Down] | type[Up] | None) -> None:
        super().__init__()
        self.res = nn.ModuleList(Residual(inputs if index == 0 else outputs, outputs) for index in range(blocks))
        self.attn = nn.ModuleList(Attention(outputs) for _ in range(blocks if attends else 0))
        if next_level is Down:
            self.downsample = Down(outputs)
        elif next_level is Up:
            self.upsample = Up(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for index, residual in enumerate(self.res):
            x_BCHW = residual(x_BCHW)
            if len(self.attn):
                x_BCHW = self.attn[index](x_BCHW)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x_BCHW = getattr(self, name)(x_BCHW)
        return x_BCHW


def _middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList([Residual(channels, channels), Attention(channels), Residual(channels, channels)])


@final
class Encoder(nn.Module):
    """From images in [−1, 1] (B, 3, H, W) to latents (B, Z, H/f, W/f), f = 2^(levels − 1)."""

    def __init__(self, width: int, multipliers: Sequence[int], blocks: int, latent: int) -> None:
        super().__init__()
        widths = [width, *(width * multiplier for multiplier in multipliers)]
        lowest = len(multipliers) - 1
        self.conv_in = _convolution(CHANNELS, width)
        self.conv_blocks = nn.ModuleList(
            Level(
                widths[index],
                widths[index + 1],
                blocks,
                attends=index == lowest,
                next_level=None if index == lowest else Down,
            )
            for index in range(len(multipliers))
        )
        self.mid = _middle(widths[-1])
        self.norm_out, self.conv_out = _norm(widths[-1]), _convolution(widths[-1], latent)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_in(x_BCHW)
        for layer in (*self.conv_blocks, *self.mid):
            x_BCHW = layer(x_BCHW)
        latents_BZHW: Tensor = self.conv_out(functional.silu(self.norm_out(x_BCHW), inplace=True))
        return latents_BZHW


@final
class Decoder(nn.Module):
    """From latents (B, Z, H, W) to images (B, 3, f·H, f·W), not clamped to [−1, 1]. One residual block more a level."""

    def __init__(self, width: int, multipliers: Sequence[int], blocks: int, latent: int) -> None:
        super().__init__()
        widths = [width * multiplier for multiplier in reversed(multipliers)]
        widths = [widths[0], *widths]
        last = len(multipliers) - 1
        self.conv_in = _convolution(latent, widths[0])
        self.mid = _middle(widths[0])
        self.conv_blocks = nn.ModuleList(
            Level(
                widths[index],
                widths[index + 1],
                blocks + 1,
                attends=index == 0,
                next_level=None if index == last else Up,
            )
            for index in range(len(multipliers))
        )
        self.norm_out, self.conv_out = _norm(widths[-1]), _convolution(widths[-1], CHANNELS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_in(x_BCHW)
        for layer in (*self.mid, *self.conv_blocks):
            x_BCHW = layer(x_BCHW)
        images_BCHW: Tensor = self.conv_out(functional.silu(self.norm_out(x_BCHW), inplace=True))
        return images_BCHW


@final
class Quantizer(nn.Module):
    """The codebook (V, D), whose rows have length one when they are used."""

    def __init__(self, codes: int, code_channels: int) -> None:
        super().__init__()
        # Pass the tensor: if nn.Embedding draws the weights on the meta device, torch loads its compiler, which takes seconds.
        self.embedding = nn.Embedding(codes, code_channels, _weight=torch.empty(codes, code_channels))

    def codebook(self) -> Tensor:
        """The rows of length one (V, D)."""
        return functional.normalize(self.embedding.weight, dim=1)


@final
class VQNetwork(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, width: int, multipliers: Sequence[int], blocks: int, latent: int, codes: int, code_channels: int) -> None:
        super().__init__()
        self.encoder = Encoder(width, multipliers, blocks, latent)
        self.decoder = Decoder(width, multipliers, blocks, latent)
        self.quantize = Quantizer(codes, code_channels)
        self.quant_conv = _convolution(latent, code_channels, 1)
        self.post_quant_conv = _convolution(code_channels, latent, 1)

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Latents (B, D, H/f, W/f), not of length one, of images in [−1, 1]."""
        latents_BDHW: Tensor = self.quant_conv(self.encoder(images_BCHW))
        return latents_BDHW

    def decode(self, codes_BHW: Tensor) -> Tensor:
        """Images (B, 3, f·H, f·W), not clamped to [−1, 1], of codes (B, H, W)."""
        rows_BDHW = functional.normalize(self.quantize.embedding(codes_BHW), dim=3).permute(0, 3, 1, 2)
        images_BCHW: Tensor = self.decoder(self.post_quant_conv(rows_BDHW))
        return images_BCHW
