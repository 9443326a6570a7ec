"""One token per pixel.

Shape letters: B batch, H and W height and width of both image and grid, C channels (1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, final

from pydantic import Field

from rarkit.errors import GridError
from rarkit.images import ImageInfo
from rarkit.tokenizers.base import ImageDecoder, LearnedState, Tokenizer, TokenizerModel, table_of_patches

if TYPE_CHECKING:
    from torch import Tensor

WHITE = 255


@final
class Pixel(Tokenizer):
    """One token per pixel of a greyscale image: its shade, rounded to the nearest of ``levels`` evenly spaced shades.

    Lossless if the images only have these shades, as ``digits`` with its 17 does.
    """

    name: Literal["pixel"] = "pixel"
    levels: Annotated[int, Field(ge=2, le=256)] = 17
    """Number of shades from black to white: the codebook size."""

    def codebook_size(self) -> int:
        return self.levels

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        _check_grey(info.channels)
        return info.height, info.width

    def image_decoder(self, state: LearnedState) -> ImageDecoder:
        return table_of_patches(self, state, 1)

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        return _PixelModel(self.levels - 1, device)


@final
class _PixelModel(TokenizerModel):
    def __init__(self, top: int, device: str) -> None:
        self.top = top
        self.device = device

    def encode(self, images_BHWC: Tensor) -> Tensor:
        _check_grey(images_BHWC.shape[-1])
        return _scaled(images_BHWC.to(self.device).squeeze(-1).long(), self.top, WHITE)

    def decode(self, codes_BHW: Tensor) -> Tensor:
        return _scaled(codes_BHW.to(self.device), WHITE, self.top).byte().unsqueeze(-1)


def _check_grey(channels: int) -> None:
    if channels != 1:
        raise GridError(
            f"tokenizer 'pixel' takes greyscale images, but these have {channels} channels. "
            "Choose another [tokenizer], such as patch_kmeans, or greyscale images in [dataset]."
        )


def _scaled(values: Tensor, top: int, old_top: int) -> Tensor:
    """values · top / old_top, rounded half up. In integer arithmetic, so that every device gives the same result."""
    return (2 * values * top + old_top) // (2 * old_top)
