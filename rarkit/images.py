"""The contract between what provides images (datasets) and what consumes them (tokenizers, feature extractors).

Shape letters: N images, H and W height and width, C channels (1 or 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import DatasetError

Split = Literal["train", "test"]
ROWS_AT_A_TIME = 64
"""Images that are read together by a loop over a reader."""
MOST_CLASSES = 2**20
"""Classes that a dataset may have: fifty times as many as ImageNet-21k. Each is a name in memory and a row of the model."""


@final
@dataclass(frozen=True)
class ImageInfo:
    """What all images of a dataset have in common."""

    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.class_names[:3])) + (", …" if len(self.class_names) > 3 else "")
        size = f"height={self.height}, width={self.width}, channels={self.channels}"
        return f"ImageInfo({size}, {self.num_classes} classes: {names})"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


@final
@dataclass(frozen=True)
class ImageBlock:
    """Images of a dataset: ``images_NHWC`` uint8 in [0, 255], ``labels_N`` int64 in [0, classes).

    Raises:
        DatasetError: the images are of another dtype or shape, or there is not one label for each.
    """

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    def __repr__(self) -> str:
        return f"ImageBlock(images {self.images_NHWC.shape} uint8, labels {self.labels_N.shape})"

    def __post_init__(self) -> None:
        images_NHWC, labels_N = self.images_NHWC, self.labels_N
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or labels_N.shape != images_NHWC.shape[:1]:
            raise DatasetError(
                f"a dataset read images of {images_NHWC.dtype} {images_NHWC.shape} with labels {labels_N.shape}; images must be "
                "uint8 (N, H, W, C), with one label each"
            )


class ImageReader(ABC):
    """Images of one split in a fixed order: row i is always the same image."""

    views: int = 1
    """So many consecutive rows, from a multiple of it on, are views of one image: crops, mirror images. Who holds images apart
    takes all views of one together."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images. If a dataset makes several crops of a file, each counts."""

    @abstractmethod
    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        """Yields rows ``start`` to ``stop - 1`` in order, in blocks of ``rows`` (the last may be shorter).

        Raises:
            DatasetError: an image cannot be read; the message names the file.
        """

    def chosen(self, rows_N: NDArray[np.int64], rows: int) -> Iterator[ImageBlock]:
        """Yields some rows, in blocks of ``rows`` (the last may be shorter). Readers with a faster way override this.

        Args:
            rows_N: numbers of the rows, ascending, each at most once.
            rows: images of a block.

        Raises:
            DatasetError: an image cannot be read; the message names the file.
        """
        for start in range(0, len(rows_N), rows):
            block_B = rows_N[start : start + rows]
            stretches = np.split(block_B, np.flatnonzero(np.diff(block_B) != 1) + 1)
            yield joined([self.read(int(stretch[0]), int(stretch[-1]) + 1) for stretch in stretches])

    @final
    def read(self, start: int = 0, stop: int | None = None) -> ImageBlock:
        """Rows ``start`` to ``stop - 1`` in one block, for data known to be small. ``stop`` defaults to the end."""
        stop = len(self) if stop is None else stop
        assert start < stop <= len(self), (start, stop, len(self))
        return joined(list(self.blocks(start, stop, max(1, stop - start))))

    @final
    def __getitem__(self, row: int) -> tuple[NDArray[np.uint8], int]:
        """One image, (H, W, C) uint8, and its label; negative rows count from the end. A torch ``DataLoader`` takes a reader.

        Raises:
            IndexError: there is no such row.
            DatasetError: the image cannot be read.
        """
        [item] = self.__getitems__([row])
        return item

    @final
    def __getitems__(self, rows: Sequence[int]) -> list[tuple[NDArray[np.uint8], int]]:
        """Several rows in any order, read together; this is what a ``DataLoader`` calls for a batch. As ``__getitem__``."""
        wanted_B = np.array([index(row) for row in rows], dtype=np.int64)
        if wanted_B.size and not (wanted_B.min() >= -len(self) and wanted_B.max() < len(self)):
            raise IndexError(f"rows {wanted_B.min()} to {wanted_B.max()} asked of {len(self)} images")
        rows_N, where_B = np.unique(wanted_B % max(1, len(self)), return_inverse=True)
        blocks = list(self.chosen(rows_N, max(1, len(rows_N))))
        # Copies: a reader may hand out views of what must not be written to.
        return [(blocks[0].images_NHWC[at].copy(), int(blocks[0].labels_N[at])) for at in where_B]

    @final
    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """All images in order, each with its label."""
        for block in self.blocks(0, len(self), ROWS_AT_A_TIME):
            for image_HWC, label in zip(block.images_NHWC, block.labels_N.tolist(), strict=True):
                yield image_HWC.copy(), label


def joined(blocks: Sequence[ImageBlock]) -> ImageBlock:
    """One or more blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    return ImageBlock(np.concatenate([block.images_NHWC for block in blocks]), np.concatenate([block.labels_N for block in blocks]))
