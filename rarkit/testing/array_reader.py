"""Images in memory, for tests of parts that read images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageBlock, ImageInfo, ImageReader


@final
class ArrayReader(ImageReader):
    """A reader of images in memory."""

    def __init__(self, images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> None:
        self._images_NHWC, self._labels_N = images_NHWC, labels_N

    def __len__(self) -> int:
        return len(self._labels_N)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            block = slice(first, min(first + rows, stop))
            yield ImageBlock(self._images_NHWC[block], self._labels_N[block])


def random_images(info: ImageInfo, count: int, seed: int = 0) -> ImageBlock:
    """Uniform noise of the shape that ``info`` gives, labelled with its classes in turn."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, info.height, info.width, info.channels), dtype=np.uint8)
    return ImageBlock(images, np.arange(count, dtype=np.int64) % info.num_classes)
