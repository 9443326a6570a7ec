"""A look at one encoded image: what it is, and how it will be seen.

Shape letters: H, W height and width, C channels (3).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.decoding import EncodedImage
from rarkit.datasets.image_bounds import FORMATS, LARGEST_FILE, FewReads
from rarkit.datasets.preparation import Preparation
from rarkit.errors import ImageError
from rarkit.files.locations import reaching
from rarkit.files.regular import read_on

if TYPE_CHECKING:
    from PIL.Image import Image

LOOKED_AT = 64
"""Height and width at which images are looked at."""
GREY = 6
"""Levels by which the colours of a grey image may differ: JPEG rounds."""
ORIENTATION = 0x0112
"""The EXIF tag of how a camera was held; 1 is upright."""
DAMAGED_EXIF = (SyntaxError, ValueError, TypeError, KeyError, EOFError, OSError, struct.error)
"""What Pillow raises of EXIF data that it cannot read."""


@final
@dataclass(frozen=True)
class Look:
    """What an image is."""

    name: str
    label: int
    fault: str = ""
    """Why it cannot be read; then nothing below is known."""
    width: int = 0
    height: int = 0
    grey: bool = False
    transparent: bool = False
    """Whether some of its pixels are."""
    light: bool = False
    """Whether it is transparent, and what is not is so light that it would not be seen on white."""
    animated: bool = False
    """Whether it has several frames or pages."""
    deep: bool = False
    """Whether it has 16 bits a channel."""
    turned: bool = False
    """Whether its EXIF data say that the camera was not held upright."""
    crop_HWC: NDArray[np.uint8] | None = None
    """The square that is seen of it, of ``LOOKED_AT`` pixels."""


def looks(filesystem: Any, images: Sequence[EncodedImage]) -> list[Look]:
    """Looks at images, one after another. Raises DatasetError if a file cannot be read, which says nothing about the image."""
    return [_look(filesystem, image) for image in images]


def data_of(filesystem: Any, image: EncodedImage) -> bytes:
    """The encoded image.

    Raises:
        ImageError: it is refused, or too large.
        DatasetError: it cannot be read.
    """
    if image.refusal:
        raise ImageError(image.refusal)
    if image.data is not None:
        return image.data
    with reaching(image.name):
        return read_on(filesystem, image.name, LARGEST_FILE, raising=ImageError)


def _look(filesystem: Any, image: EncodedImage) -> Look:
    try:
        data = data_of(filesystem, image)
        views, transparent = Preparation(LOOKED_AT)(data, image.name)
    except ImageError as error:
        return Look(image.name, image.label, fault=str(error))
    from PIL import Image

    levels_HWC = views[0].astype(np.int16)
    with Image.open(FewReads(data), formats=FORMATS) as opened:
        return Look(
            name=image.name,
            label=image.label,
            width=opened.width,
            height=opened.height,
            grey=int((levels_HWC.max(-1) - levels_HWC.min(-1)).max()) <= GREY,
            transparent=transparent,
            light=transparent and _is_light(data, image.name),
            animated=bool(getattr(opened, "is_animated", False)),
            deep=_is_deep(opened),
            turned=_is_turned(opened),
            crop_HWC=views[0],
        )


def _is_light(data: bytes, name: str) -> bool:
    """Whether the opaque part of an image is light on average."""
    on_black, on_white = (
        Preparation(LOOKED_AT, background=ground)(data, name)[0][0].astype(np.float64).mean(-1)
        for ground in ((0, 0, 0), (255, 255, 255))
    )
    opacity = 1 - (on_white - on_black) / 255
    return bool(on_black.sum() > LIGHT * opacity.sum())


LIGHT = 200
"""Mean level from which the opaque part of an image hardly shows on white."""


def _is_turned(image: Image) -> bool:
    try:
        return image.getexif().get(ORIENTATION, 1) not in (0, 1)
    except DAMAGED_EXIF:
        # The pixels can be read all the same.
        return False


def _is_deep(image: Image) -> bool:
    """By the decoder's arguments, since Pillow makes 8 bits of 16 where there are colours."""
    return image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
