"""From an encoded image to the square crops that tokenizers take.

The crops are those of OpenAI's guided-diffusion ("ADM", Dhariwal and Nichol, 2021) and of RAR's ten-crop (arXiv 2411.00776).
Shape letters: V views of one image, H and W height and width, A red, green, blue and opacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.image_bounds import FORMATS, FewReads, check_bounds
from rarkit.datasets.transparency import WHITE, Background, laid_on
from rarkit.errors import ImageError
from rarkit.files.recognition import HEAD, IMAGES, instead, recognised
from rarkit.randomness import uniforms

if TYPE_CHECKING:
    from PIL.Image import Image

Crop = Literal["centre", "ten"]
TEN_CROP_MARGIN = 1.1
"""Ten-crop crops a centre crop that is larger than its own crops by this factor."""
BAND = 2**20
"""Pixels of an image that are laid on a background, or whose 16 bits are made 8, at a time: it takes 40 bytes a pixel."""


@final
@dataclass(frozen=True)
class Preparation:
    """How images are decoded and cropped. Picklable, so that it can be sent to worker processes."""

    size: int
    crop: Crop = "centre"
    exif: bool = False
    background: Background = WHITE
    random_crops: int = 0
    """Random crops of an image, in place of ``crop``; 0 for none."""
    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_seed: int = 0
    flip: bool = False
    """Whether the mirrored crops follow the crops."""

    @property
    def views(self) -> int:
        """Number of crops per image."""
        crops = self.random_crops or (10 if self.crop == "ten" else 1)
        return 2 * crops if self.flip else crops

    def __call__(self, data: bytes, name: str, number: int = 0) -> tuple[NDArray[np.uint8], bool]:
        """The crops of an encoded image, (V, size, size, 3), and whether it has transparent pixels.

        ``number`` is that of the image, with which its random crops are drawn. Raises ImageError, naming ``name``, if it cannot be
        decoded.
        """
        image, transparent = _decoded(data, name, self.exif, self.background, self.resized)
        views_VHWC = np.stack([np.asarray(crop) for crop in self._crops(image, number)])
        if self.flip:
            views_VHWC = np.concatenate([views_VHWC, views_VHWC[:, :, ::-1]])
        return views_VHWC, transparent

    def _crops(self, image: Image, number: int) -> list[Image]:
        if not self.random_crops:
            return ten_crop(image, self.size) if self.crop == "ten" else [centre_crop(image, self.size)]
        chance_V3 = uniforms(self.crop_seed, "random crops", 0, [number], 3 * self.random_crops).reshape(-1, 3)
        return random_crops(image, self.size, self.crop_scale, chance_V3)

    def check(self, data: bytes, name: str) -> None:
        """Decodes an image to see whether it can be. Raises ImageError as a call does."""
        load_rgb(data, name, exif=self.exif, size=self.resized)

    @property
    def resized(self) -> int:
        """The length to which the short side of an image is resized."""
        return int(self.size * TEN_CROP_MARGIN) if self.crop == "ten" else self.size


def centre_crop(image: Image, size: int) -> Image:
    """The central ``size`` × ``size`` square of an image whose short side is resized to ``size``.

    While the short side is at least twice ``size``, the image is halved with a box filter (sides rounded down). It is then resized
    bicubically, up or down, with sides rounded to the nearest whole number (halves to even). The crop starts at half the excess,
    rounded down.
    """
    from PIL.Image import Resampling

    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC)
    return _square(image, (image.width - size) // 2, (image.height - size) // 2, size)


def ten_crop(image: Image, size: int) -> list[Image]:
    """Ten ``size`` × ``size`` crops of the centre crop at int(1.1 · size).

    In order: the corners top left, top right, bottom left and bottom right, the centre (offset rounded to the nearest whole
    number, halves to even), then the same five of the mirrored image.
    """
    from PIL.Image import Transpose

    wide = int(size * TEN_CROP_MARGIN)
    whole = centre_crop(image, wide)
    far, middle = wide - size, round((wide - size) / 2)
    corners = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)]
    both = (whole, whole.transpose(Transpose.FLIP_LEFT_RIGHT))
    return [_square(side, left, top, size) for side in both for left, top in corners]


def random_crops(image: Image, size: int, scale: tuple[float, float], chance_V3: NDArray[np.float64]) -> list[Image]:
    """Square crops of random size and place, resized to ``size`` × ``size``.

    As guided-diffusion's random crops (``random_crop_arr``), except that sides and places are not rounded to whole pixels. A crop
    of at least twice ``size`` is first made smaller by a whole number with a box filter, then resized bicubically.

    Args:
        image: RGB.
        size: height and width of the results.
        scale: the least and the greatest side of a crop, as fractions in (0, 1] of the image's short side.
        chance_V3: for each crop three numbers in [0, 1), which choose its side, its left and its upper edge.
    """
    from PIL.Image import Resampling

    least, greatest = scale
    crops = []
    for larger, across, down in chance_V3.tolist():
        side = (least + larger * (greatest - least)) * min(image.size)
        left, top = across * (image.width - side), down * (image.height - side)
        box = (left, top, min(left + side, image.width), min(top + side, image.height))
        crops.append(image.resize((size, size), Resampling.BICUBIC, box, reducing_gap=1.0))
    return crops


def load_rgb(data: bytes, name: str, *, exif: bool = False, background: Background = WHITE, size: int = 1) -> Image:
    """Decodes an image to RGB: grey is repeated, transparency laid on a background, CMYK converted as Pillow does.

    16-bit grey levels keep their upper byte, whereas Pillow turns all levels above 255 white.

    Args:
        data: the encoded image, in one of the formats of ``image_bounds``; the first frame of an animation is used.
        name: the image's name in errors.
        exif: whether to rotate it according to its EXIF orientation. The published pipelines do not.
        background: the colour behind transparent pixels. The published pipelines drop transparency, which uncovers whatever colour
            is stored there.
        size: the short side to which it is going to be resized, which memory is bounded for.

    Raises:
        ImageError: the image is truncated, damaged, too large, in another format, or its pixels have no known range.
    """
    return _decoded(data, name, exif, background, size)[0]


def _decoded(data: bytes, name: str, exif: bool, background: Background, size: int) -> tuple[Image, bool]:
    """The image as RGB, and whether some of its pixels are transparent."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(FewReads(data), formats=FORMATS) as image:
            check_bounds(image, size, data, name)
            image.load()
            if exif:
                ImageOps.exif_transpose(image, in_place=True)
            return _on_background(image, background)
    except (MemoryError, ImageError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} ({len(data):,} bytes): {error} Make it smaller, or remove it.") from error
    except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}"
        cure = f"{instead(recognised(data[:HEAD]), *IMAGES).removesuffix('.')}, or remove it."
        raise ImageError(f"{name} ({len(data):,} bytes) cannot be read as an image: {reason}. {cure}") from error


def _on_background(image: Image, background: Background) -> tuple[Image, bool]:
    """The image as RGB, and whether some of its pixels are transparent. What is made on the way is bounded."""
    from PIL.Image import new

    if image.width * image.height <= BAND or not (image.has_transparency_data or image.mode.startswith("I")):
        return _band_on_background(image, background)
    canvas, transparent = new("RGB", image.size), False
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        converted, is_transparent = _band_on_background(band, background)
        canvas.paste(converted, (0, top))
        transparent |= is_transparent
    return canvas, transparent


def _band_on_background(image: Image, background: Background) -> tuple[Image, bool]:
    from PIL.Image import fromarray

    if not image.has_transparency_data:
        return _as_rgb(image), False
    pixels_HWA = _with_opacity(image)
    return fromarray(laid_on(pixels_HWA, background)), bool((pixels_HWA[..., 3] < 255).any())


def _with_opacity(image: Image) -> NDArray[np.uint8]:
    """Red, green, blue and opacity (H, W, 4) uint8: of pixels with an opacity, of palettes, and of one transparent colour."""
    if not image.mode.startswith("I"):
        return np.asarray(image.convert("RGBA"))
    opacity_HW = np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype(np.uint8)
    return np.dstack([np.asarray(_as_rgb(image)), opacity_HW])


def _as_rgb(image: Image) -> Image:
    from PIL.Image import fromarray

    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise ValueError(f"grey levels from {levels.min()} to {levels.max()}, but only 16 bits are supported")
        return fromarray((levels.astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    return image.convert("RGB")


def _square(image: Image, left: int, top: int, size: int) -> Image:
    return image.crop((left, top, left + size, top + size))
