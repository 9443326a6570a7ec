"""The handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rarkit.datasets.arrays import ArrayRows, layout_of
from rarkit.datasets.base import Dataset
from rarkit.datasets.splits import held_out, split_rows
from rarkit.datasets.transparency import WHITE
from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.registry.component import Seed

LEVELS = 16
"""The highest pixel level; levels are whole numbers from 0."""
OF_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
"""Number of digits of each class."""


@final
class Digits(Dataset):
    """1,797 handwritten digits of 8 × 8 pixels in 17 shades of grey (scikit-learn's ``load_digits``; no network).

    The test part of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin and Kaynak, 1998). A pixel of level v, 0 to
    16, becomes the byte nearest to v · 255 / 16. Each class is split into training and test images, and each split is shuffled.
    """

    name: Literal["digits"] = "digits"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of each class held out for testing, rounded to whole images; each split gets at least one image per class."""
    split_seed: Seed = 0
    """Seed of the split and of the order of the images."""

    def info(self) -> ImageInfo:
        return ImageInfo(height=8, width=8, channels=1, class_names=tuple("0123456789"))

    def count(self, split: Split) -> int:
        for_test = sum(held_out(count, self.test_fraction) for count in OF_CLASS)
        return for_test if split == "test" else sum(OF_CLASS) - for_test

    def open(self, split: Split) -> ImageReader:
        images_NHW, labels_N = _digits()
        rows = split_rows(labels_N, self.test_fraction, self.split_seed)[split]
        return ArrayRows(images_NHW[rows], labels_N[rows], layout_of(images_NHW.shape, images_NHW.dtype, "digits"), WHITE)


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images and their labels. Kept, because a run opens them again and again."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits["images"] * 255 / LEVELS).astype(np.uint8), digits["target"].astype(np.int64)
