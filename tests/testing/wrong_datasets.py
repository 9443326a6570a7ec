"""A dataset that breaks the promise which ``fault`` names."""

from __future__ import annotations

import itertools
import random
from typing import Literal, final

import numpy as np

from rarkit import Dataset, ImageBlock, ImageInfo, ImageReader
from rarkit.errors import DatasetError

COUNTER = itertools.count()
GREY = ImageInfo(8, 8, 1, tuple("abc"))
COUNT = {"train": 200, "test": 40}


@final
class Noise(Dataset):
    """Noise."""

    name: Literal["noise"] = "noise"
    fault: Literal[
        "none",
        "labels",
        "label_60",
        "one_label",
        "int32_labels",
        "size",
        "same_names",
        "black",
        "fractions",
        "blocks",
        "order",
        "memory",
        "cursor",
        "flips",
        "late_block",
        "chosen",
        "one_chosen",
        "any_split",
        "no_train",
        "empty",
        "count",
        "test_is_train",
        "test_in_train",
        "hashed",
        "listed",
        "crashing_at_the_end",
    ] = "none"
    """What is wrong."""

    def info(self):
        return ImageInfo(8, 8, 1, tuple("aab")) if self.fault == "same_names" else GREY

    def splits(self):
        if self.fault == "no_train":
            return ("test",)
        return ("train",) if self.fault == "any_split" else ("train", "test")

    def count(self, split):
        return COUNT[split] - (self.fault == "count")

    def open(self, split):
        if split not in ("train", "test"):
            raise DatasetError(f"noise has no split {split!r}")
        return NoiseReader(self.fault, split)


@final
class NoiseReader(ImageReader):
    def __init__(self, fault, split):
        self.fault, self.cursor = fault, 0
        self.count = 0 if fault == "empty" and split == "test" else COUNT[split]
        seed = {"train": 0, "test": 1}[split]
        if fault == "test_is_train" or (fault == "test_in_train" and split == "test"):
            seed = 0
        seed += {"order": next(COUNTER), "hashed": hash("noise") % 2**32}.get(fault, 0)
        self.images_NHWC = np.random.default_rng(seed).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
        if fault == "listed":
            self.images_NHWC = self.images_NHWC[[int(name) for name in {str(number) for number in range(200)}]]

    def __len__(self):
        return self.count

    def chosen(self, rows_N, rows):
        if self.fault == "chosen" or (self.fault == "one_chosen" and len(rows_N) == 1):
            rows_N = np.arange(len(rows_N))
        return super().chosen(rows_N, rows)

    def blocks(self, start, stop, rows):
        fault = self.fault
        rows = 4 if fault == "blocks" else rows
        shared_NHWC = np.empty((rows, 8, 8, 1), dtype=np.uint8)
        self.cursor = start
        for first in range(start, stop, rows):
            index_N = np.arange(first, min(first + rows, stop))
            images_NHWC, labels_N = self.images_NHWC[index_N], index_N % 3
            if fault == "memory":
                shared_NHWC[: len(index_N)] = images_NHWC
                images_NHWC = shared_NHWC[: len(index_N)]
            elif fault == "cursor":
                images_NHWC = self.images_NHWC[self.cursor : self.cursor + len(index_N)]
                self.cursor = min(self.cursor + len(index_N), stop - 1)
            elif fault == "flips" and random.random() < 0.5:
                images_NHWC = images_NHWC[:, :, ::-1]
            elif fault == "late_block" and first > start and first > 100:
                images_NHWC = self.images_NHWC[index_N - 1]
            elif fault == "crashing_at_the_end" and stop == self.count and stop - start < 40:
                raise IndexError(f"index {stop} is out of bounds")
            yield ImageBlock(self._pixels(images_NHWC), self._labels(index_N, labels_N))

    def _pixels(self, images_NHWC):
        match self.fault:
            case "black":
                return np.zeros_like(images_NHWC)
            case "fractions":
                return images_NHWC // 128
            case "size":
                return images_NHWC[:, 1:]
        return images_NHWC

    def _labels(self, index_N, labels_N):
        match self.fault:
            case "labels":
                return index_N % 4
            case "label_60":
                return np.where(index_N == 60, 3, labels_N)
            case "one_label":
                return 0 * labels_N
            case "int32_labels":
                return labels_N.astype(np.int32)
        return labels_N
