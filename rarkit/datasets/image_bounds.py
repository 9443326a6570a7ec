"""Which image files are decoded, and how much memory one may take: known from its header, before any is taken.

A file of a few hundred bytes may claim any number of pixels, and a picture of 1 × 60,000 pixels is 256 × 15,360,000 once its short
side is resized to 256.
"""

from __future__ import annotations

import io
from math import prod
from typing import TYPE_CHECKING, final

from rarkit.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats, as Pillow names them, that are decoded. All others are refused unseen: EPS would start Ghostscript."""
LARGEST_FILE = 2**29
"""Bytes of an encoded image."""
MOST_MEMORY = 2**30
"""Bytes that decoding and cropping an image may take: 134 megapixels of most files, 89 to 134 of JPEG, 53 of WebP."""
MOST_SCANNED = 2**34
"""Pixels of a JPEG times its scans, each of which goes through all pixels: 10 seconds, where photographs take one."""
MOST_IN_PYTHON = 2**22
"""Numbers of an image (pixels of each channel) that Pillow decodes one by one in Python, which takes a microsecond each."""
MOST_READS = 2**19
"""How often an image may be read from: Pillow reads headers byte by byte or chunk by chunk. With the least of chunks that writers
use, of 8 KB, the largest of files takes half of them."""
_IN_PYTHON = ("bmp_rle", "ppm", "ppm_plain")
"""Pillow's decoders in Python: of run-length encoded BMP, and of PPM as text or with levels other than 0 to 255."""
_SCAN = b"\xff\xda"
_RUN_LENGTHS = (1, 2)
"""Compressions of BMP files in which a few bytes skip up to 255 rows."""
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
"""Tags of TIFF files."""


@final
class FewReads(io.BytesIO):
    """An encoded image that is not read piece by piece without an end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises ValueError if it was read too often."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it is in more than {MOST_READS:,} pieces")
        return super().read(size)


def check_bounds(image: Image, size: int, data: bytes, name: str) -> None:
    """Refuses an image that would take too much memory or time, from its header.

    Args:
        image: opened, but not decoded.
        size: the short side to which it is resized.
        data: the encoded image.
        name: its name in the error.

    Raises:
        ImageError: it would.
    """
    memory = len(data) + max(_while_decoding(image), _while_resizing(*image.size, size))
    about = f"{name} ({len(data):,} bytes) has {image.width:,} × {image.height:,} pixels"
    if memory > MOST_MEMORY:
        raise ImageError(
            f"{about}, which take {memory / 2**30:,.1f} GiB to decode and to resize to {size:,}; an image may take "
            f"{MOST_MEMORY / 2**30:.0f} GiB. Make it smaller, or remove it."
        )
    decoders = {tile[0] for tile in getattr(image, "tile", ())}
    if not decoders.isdisjoint(_IN_PYTHON) and prod(image.size) * len(image.getbands()) > MOST_IN_PYTHON:
        raise ImageError(f"{about} in a kind of {image.format} that takes minutes to decode. Save it as PNG, or remove it.")
    if image.format in ("JPEG", "MPO") and data.count(_SCAN) * prod(image.size) > MOST_SCANNED:
        raise ImageError(f"{about} in {data.count(_SCAN):,} scans, which takes minutes to decode. Save it again, or remove it.")


def _while_decoding(image: Image) -> int:
    """Bytes that Pillow's decoder takes, with the image it fills, and then the conversion to RGB."""
    pixels = prod(image.size)
    stored = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
    decoder = 0
    if image.format in ("JPEG", "MPO"):
        # What the scans of a progressive file add up: two bytes for each pixel of each channel, some of which are subsampled.
        sampled = [across * down for _, across, down, _ in getattr(image, "layer", ())] or [1, 1, 1, 1]
        decoder = 2 * pixels * sum(sampled) // max(sampled)
    elif image.format == "WEBP":
        # Two canvases, the lossless pixels, and the bytes that Pillow gets of them.
        decoder = 16 * pixels
    elif image.format == "TIFF":
        decoder = 8 * _strip(image)
    elif image.format == "BMP" and image.info.get("compression") in _RUN_LENGTHS:
        decoder = 2 * (pixels + 255 * image.width)
    return max(stored * pixels + decoder, (stored + 4) * pixels)


def _strip(image: Image) -> int:
    """Pixels of a strip or tile of a TIFF file, which libtiff decodes at a time."""
    tags = getattr(image, "tag_v2", {})
    if _TILE_WIDTH in tags:
        return int(tags[_TILE_WIDTH]) * int(tags.get(_TILE_HEIGHT, image.height))
    return image.width * min(image.height, int(tags.get(_ROWS_PER_STRIP, image.height)))


def _while_resizing(width: int, height: int, size: int) -> int:
    """Bytes of RGB images, four a pixel, while ``centre_crop`` resizes one: first across, then down."""
    most = 0
    while min(width, height) >= 2 * size:
        most = max(most, width * height + width // 2 * height + width // 2 * (height // 2))
        width, height = width // 2, height // 2
    scale = size / min(width, height)
    wide, high = round(width * scale), round(height * scale)
    return 4 * max(most, width * height + wide * height + wide * high)
