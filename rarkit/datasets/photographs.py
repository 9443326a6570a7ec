"""Crops of the two photographs that come with scikit-learn: real colour images without a download.

Shape letters: N images, H, W, C height, width, channels.
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
from rarkit.registry.bounds import Images
from rarkit.registry.component import Seed

CLASSES = ("china", "flower")
HEIGHT, WIDTH = 427, 640
"""Pixels of each photograph."""
FOR_TRAINING = WIDTH * 4 // 5
"""Columns from the left of which training images are cropped; test images are cropped from the others."""
COLUMNS: dict[Split, tuple[int, int]] = {"train": (0, FOR_TRAINING), "test": (FOR_TRAINING, WIDTH)}


@final
class Photographs(Dataset):
    """Square crops of two colour photographs, a temple and a flower (scikit-learn's ``load_sample_image``; no network).

    Training images are cropped from the left four fifths of each photograph of 427 × 640 pixels, test images from the rest, so that
    they share no pixel. Crops keep the photographs' pixels and lie where the seed puts them. They overlap: 8,000 crops of 32 × 32
    have 19 times as many pixels as what they are cropped from. So held-out numbers tell how well a model knows these two
    photographs, not photographs in general. Crops are made when they are read.
    """

    name: Literal["photographs"] = "photographs"
    size: Annotated[int, Field(gt=0, le=WIDTH - FOR_TRAINING)] = 32
    """Height and width of the crops in pixels."""
    train_images: Images = 8_000
    """Number of training images; image i has class i modulo 2."""
    test_images: Images = 1_000
    """Number of test images."""
    seed: Seed = 0
    """Seed of the crops."""

    def info(self) -> ImageInfo:
        return ImageInfo(height=self.size, width=self.size, channels=3, class_names=CLASSES)

    def count(self, split: Split) -> int:
        return self.train_images if split == "train" else self.test_images

    def open(self, split: Split) -> ImageReader:
        from sklearn.datasets import load_sample_image

        photographs = np.stack([load_sample_image(f"{name}.jpg") for name in CLASSES])
        left, right = COLUMNS[split]
        return _Crops(photographs[:, :, left:right], self, split)


@final
class _Crops(ImageReader):
    def __init__(self, photographs_NHWC: NDArray[np.uint8], settings: Photographs, split: Split) -> None:
        self._photographs_NHWC, self._settings, self._split = photographs_NHWC, settings, split

    def __len__(self) -> int:
        return self._settings.count(self._split)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        return (self._block(np.arange(first, min(first + rows, stop))) for first in range(start, stop, rows))

    def chosen(self, rows_N: NDArray[np.int64], rows: int) -> Iterator[ImageBlock]:
        return (self._block(rows_N[first : first + rows]) for first in range(0, len(rows_N), rows))

    def _block(self, rows_N: NDArray[np.int64]) -> ImageBlock:
        _, height, width, _ = self._photographs_NHWC.shape
        size, labels_N = self._settings.size, rows_N % len(CLASSES)
        chance_N2 = uniforms(self._settings.seed, f"photographs {self._split}", 0, rows_N, 2)
        top_N, left_N = (chance_N2 * [height - size + 1, width - size + 1]).astype(np.int64).T
        y_NH, x_NW = top_N[:, None] + np.arange(size), left_N[:, None] + np.arange(size)
        images_NHWC = self._photographs_NHWC[labels_N[:, None, None], y_NH[:, :, None], x_NW[:, None]]
        return ImageBlock(images_NHWC, labels_N)
