"""Images without files, for tests of what looks at images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageBlock, ImageInfo, ImageReader


@final
class ArrayReader(ImageReader):
    """Images that are already in memory, as a reader."""

    def __init__(self, images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> None:
        self._everything = ImageBlock(images_NHWC, labels_N)

    def __len__(self) -> int:
        return len(self._everything.labels_N)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            part = slice(first, min(first + rows, stop))
            yield ImageBlock(self._everything.images_NHWC[part], self._everything.labels_N[part])


def random_images(info: ImageInfo, count: int, seed: int = 0) -> ImageBlock:
    """Uniform noise of the size that ``info`` says, with its classes in turn as labels."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, info.height, info.width, info.channels), dtype=np.uint8)
    return ImageBlock(images, np.arange(count, dtype=np.int64) % info.num_classes)
