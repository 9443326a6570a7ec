"""From an encoded image to the square crops that tokenizers are given.

The crops are those of OpenAI's guided-diffusion ("ADM", Dhariwal and Nichol, 2021) and of RAR's ten-crop (arXiv 2411.00776).
Shape letters: V views of one image (1 or 10), H and W height and width.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

Crop = Literal["centre", "ten"]
TEN_CROP_MARGIN = 1.1
"""Ten-crop looks at the centre crop that is this much larger than the crops themselves."""


@final
@dataclass(frozen=True)
class Preparation:
    """Which crops of an image are taken, and how it is decoded: settings that travel to worker processes."""

    size: int
    crop: Crop = "centre"
    exif: bool = False

    @property
    def views(self) -> int:
        """How many crops one image gives."""
        return 10 if self.crop == "ten" else 1

    def __call__(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """The crops of an encoded image: (V, size, size, 3). Raises DatasetError, naming ``name``, if it cannot be decoded."""
        image = load_rgb(data, name, exif=self.exif)
        views = ten_crop(image, self.size) if self.crop == "ten" else [centre_crop(image, self.size)]
        return np.stack([np.asarray(view) for view in views])


def centre_crop(image: Image, size: int) -> Image:
    """The middle square of an image, ``size`` × ``size``, after its short side was brought to ``size``.

    The image is halved with a box filter (sizes rounded down) while its short side is at least twice ``size``; then resized
    bicubically, up or down, sides rounded to the nearest whole number (halves to even); the crop begins at the excess divided by
    two, rounded down.
    """
    from PIL.Image import Resampling

    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC)
    return _square(image, (image.width - size) // 2, (image.height - size) // 2, size)


def ten_crop(image: Image, size: int) -> list[Image]:
    """Ten squares, ``size`` × ``size``, of the centre crop at int(1.1 · size).

    They are its corners top left, top right, bottom left and bottom right, its middle (offset rounded to the nearest whole
    number, halves to even), and then the same five of the mirrored image.
    """
    from PIL.Image import Transpose

    wide = int(size * TEN_CROP_MARGIN)
    whole = centre_crop(image, wide)
    far, middle = wide - size, round((wide - size) / 2)
    corners = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)]
    both = (whole, whole.transpose(Transpose.FLIP_LEFT_RIGHT))
    return [_square(side, left, top, size) for side in both for left, top in corners]


def load_rgb(data: bytes, name: str, *, exif: bool = False) -> Image:
    """Decodes an image into RGB as Pillow's ``convert("RGB")`` does: grey is repeated, transparency dropped, CMYK converted.

    One departure: of 16-bit grey levels the upper byte is taken, where Pillow would turn all levels above 255 white.

    Args:
        data: the encoded image, in any format that Pillow reads; of an animation, the first picture.
        name: what to call it in an error.
        exif: turn it as its EXIF orientation says. The published pipelines do not.

    Raises:
        DatasetError: the image is truncated, damaged, of no known format, or has pixels without a known range.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            # Pillow would have palettes with transparency converted to RGBA; we have no use for it.
            warnings.filterwarnings("ignore", message="Palette images with Transparency", category=UserWarning)
            image.load()
            if exif:
                ImageOps.exif_transpose(image, in_place=True)
            return _as_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "it is of no format that Pillow knows"
        raise DatasetError(
            f"{name} ({len(data):,} bytes) cannot be read as an image: {reason}. Fetch it again, or take it out."
        ) from error


def _as_rgb(image: Image) -> Image:
    from PIL.Image import fromarray

    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise ValueError(f"grey levels from {levels.min()} to {levels.max()}, of which 16 bits are understood")
        return fromarray((levels.astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    return image.convert("RGB")


def _square(image: Image, left: int, top: int, size: int) -> Image:
    return image.crop((left, top, left + size, top + size))
