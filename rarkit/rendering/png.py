"""Pictures as PNG files.

Shape letters: N images, H, W, C their height, width and channels (1 or 3).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarkit.files.atomic import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


def png_bytes(image: Image) -> bytes:
    """The image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_png(image: Image, path: Path) -> None:
    """Writes a PNG, whole or not at all. Raises OSError if it cannot be written."""
    write_bytes(path, png_bytes(image))


def write_pngs(images_NHWC: NDArray[np.uint8], labels: Sequence[int], names: Sequence[str], folder: Path) -> list[Path]:
    """Writes one PNG an image: ``207-golden-retriever-0003.png`` is number 3 of class 207.

    Args:
        images_NHWC: uint8, of 1 or 3 channels, class by class, as many of each.
        labels: of the classes, in the order of the images.
        names: of the classes, likewise.
        folder: is made if it is not there.

    Returns:
        The files.

    Raises:
        OSError: one cannot be written; those before it are there.
    """
    from PIL import Image

    per_class = len(images_NHWC) // len(labels)
    paths = []
    for index, image_HWC in enumerate(images_NHWC):
        which, number = divmod(index, per_class)
        name = re.sub(r"\W+", "-", names[which]).strip("-")
        path = folder / f"{labels[which]:03d}-{name}-{number:04d}.png"
        write_png(Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC), path)
        paths.append(path)
    return paths
