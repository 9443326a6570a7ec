"""The sizes of TiTok's networks, and those of the released files."""

from __future__ import annotations

from typing import Annotated, Literal, Self, final

from pydantic import Field, model_validator

from rarkit import Settings

Width = Annotated[int, Field(gt=0, le=2**16)]
Depth = Annotated[int, Field(gt=0, le=2**12)]
Codes = Annotated[int, Field(ge=2, le=2**20)]
Channels = Annotated[int, Field(gt=0, le=2**13)]
Multiple = Annotated[int, Field(gt=0, le=64)]


@final
class TransformerSizes(Settings):
    """Encoder or decoder."""

    width: Width
    """Numbers of each entry."""
    layers: Depth
    """Transformer blocks."""
    heads: Depth
    """Attention heads, a divisor of the width."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of the {self.heads} heads; set them to agree")
        return self


@final
class PixelDecoderSizes(Settings):
    """The decoder of MaskGIT-VQGAN, from its codes to pixels."""

    codes: Codes = 1024
    """The codebook size."""
    z_channels: Channels = 256
    """The dimension of a code's vector."""
    hidden_channels: Annotated[int, Field(gt=0, le=2**13, multiple_of=32)] = 128
    """Channels at full resolution."""
    channel_mult: Annotated[tuple[Multiple, ...], Field(min_length=1, max_length=14)] = (1, 1, 2, 2, 4)
    """Multiples of ``hidden_channels`` at each resolution; each resolution after the first halves height and width."""
    num_res_blocks: Annotated[int, Field(gt=0, le=64)] = 2
    """Residual blocks per resolution."""


@final
class TiTokSizes(Settings):
    """A network of TiTok's kind."""

    encoder: TransformerSizes
    """The transformer from patches to latent tokens."""
    decoder: TransformerSizes
    """The transformer from tokens to patches."""
    tokens: Annotated[int, Field(gt=0, le=2**16)]
    """Tokens of an image."""
    codes: Codes
    """The codebook size."""
    code_channels: Channels
    """The dimension of a code's vector."""
    l2_norm: bool
    """Whether vectors are brought to length one before they are compared, and decoded from."""
    pixels: PixelDecoderSizes | None = None
    """The decoder behind the transformer, in the first kind; null in the second, whose transformer decodes to pixels."""
    image_size: Annotated[int, Field(gt=0, le=2**13)] = 256
    """Height and width of the images."""
    patch: Annotated[int, Field(gt=0, le=2**13)] = 16
    """Height and width of a patch."""

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(f"images of {self.image_size} pixels do not divide into patches of {self.patch}; set them to agree")
        if self.pixels is not None and 2 ** (len(self.pixels.channel_mult) - 1) != self.patch:
            raise ValueError(
                f"{len(self.pixels.channel_mult)} resolutions in pixels.channel_mult decode a patch to "
                f"{2 ** (len(self.pixels.channel_mult) - 1)} pixels a side, but patch is {self.patch}; set them to agree"
            )
        return self

    def side(self) -> int:
        """Patches of a side."""
        return self.image_size // self.patch


SMALL = TransformerSizes(width=512, layers=8, heads=8)
BASE = TransformerSizes(width=768, layers=12, heads=12)
LARGE = TransformerSizes(width=1024, layers=24, heads=16)


def _first(transformer: TransformerSizes, tokens: int) -> TiTokSizes:
    return TiTokSizes(
        encoder=transformer,
        decoder=transformer,
        tokens=tokens,
        codes=4096,
        code_channels=12,
        l2_norm=True,
        pixels=PixelDecoderSizes(),
    )


def _second(encoder: TransformerSizes, tokens: int) -> TiTokSizes:
    return TiTokSizes(encoder=encoder, decoder=LARGE, tokens=tokens, codes=8192, code_channels=64, l2_norm=False)


Preset = Literal["l32", "b64", "s128", "bl64_vq8k", "bl128_vq8k", "sl256_vq8k"]
PRESETS: dict[Preset, TiTokSizes] = {
    "l32": _first(LARGE, 32),
    "b64": _first(BASE, 64),
    "s128": _first(SMALL, 128),
    "bl64_vq8k": _second(BASE, 64),
    "bl128_vq8k": _second(BASE, 128),
    "sl256_vq8k": _second(SMALL, 256),
}
"""The released files ``tokenizer_titok_<preset>.bin``."""
