"""Generated images: blobs whose colours and positions depend on the class. Stand-ins of any size, made from a seed.

Shape letters: N images, H, W, C height, width, channels, K blobs of an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rarkit.datasets.base import Dataset
from rarkit.images import ImageBlock, ImageInfo, ImageReader, Split
from rarkit.randomness import uniforms
from rarkit.registry.bounds import Images, Side
from rarkit.registry.component import NotInFingerprint, Seed

BLOBS = 4


@final
class Generated(Dataset):
    """Soft blobs on a dark background, similar within a class. For rehearsals and tests without real images."""

    name: Literal["generated"] = "generated"
    height: Side = 32
    """Image height in pixels."""
    width: Side = 32
    """Image width in pixels."""
    channels: Literal[1, 3] = 3
    """1 for greyscale, 3 for colour."""
    class_names: Annotated[tuple[str, ...], Field(min_length=1), NotInFingerprint()] = tuple("0123456789")
    """Names of the classes; their number is the number of classes."""
    train_images: Images = 64
    """Number of training images; image i has class i modulo the number of classes."""
    test_images: Images = 32
    """Number of test images."""
    seed: Seed = 0
    """Seed of the images."""

    def content(self) -> int:
        return len(self.class_names)

    def info(self) -> ImageInfo:
        return ImageInfo(self.height, self.width, self.channels, self.class_names)

    def count(self, split: Split) -> int:
        return self.train_images if split == "train" else self.test_images

    def open(self, split: Split) -> ImageReader:
        return _Reader(self, split)


@final
class _Reader(ImageReader):
    def __init__(self, settings: Generated, split: Split) -> None:
        self._settings, self._split = settings, split

    def __len__(self) -> int:
        return self._settings.count(self._split)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            index_N = np.arange(first, min(first + rows, stop))
            labels_N = index_N % len(self._settings.class_names)
            yield ImageBlock(self._drawn(index_N, labels_N), labels_N)

    def _drawn(self, index_N: NDArray[np.int64], labels_N: NDArray[np.int64]) -> NDArray[np.uint8]:
        settings = self._settings
        numbers = BLOBS * (3 + settings.channels)
        of_class = uniforms(settings.seed, "generated class", 0, labels_N, numbers)
        of_image = uniforms(settings.seed, f"generated {self._split}", 0, index_N, numbers)
        # Mostly determined by the class, with some variation per image.
        mixed = (0.8 * of_class + 0.2 * of_image).reshape(len(index_N), BLOBS, -1)
        y_H, x_W = (np.linspace(0, 1, side) for side in (settings.height, settings.width))
        images = np.zeros((len(index_N), settings.height, settings.width, settings.channels))
        for blob in range(BLOBS):
            row, column, size, colour_NC = *mixed[:, blob, :3].T[..., None, None], mixed[:, blob, None, None, 3:]
            distance_NHW = (y_H[:, None] - row) ** 2 + (x_W - column) ** 2
            images += np.exp(-distance_NHW / (0.004 + 0.03 * size**2))[..., None] * colour_NC
        return (255 * np.clip(images, 0, 1)).astype(np.uint8)
