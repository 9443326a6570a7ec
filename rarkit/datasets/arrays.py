"""How arrays of images and labels are read, whichever of the usual layouts they have.

Shape letters: N images, H, W, C image height, width, channels; X the axes of an image as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.transparency import Background, laid_on
from rarkit.errors import DatasetError
from rarkit.images import MOST_CLASSES, ImageBlock, ImageReader

CHANNELS = (1, 3, 4)
"""Grey, colour, and colour with opacity."""
LARGEST_LABELS = 2**28
"""Bytes of all labels, as numbers of 64 bits or as text, which has four for each character: 33 million numbers."""


@final
@dataclass(frozen=True)
class Layout:
    """How an array of images is stored."""

    count: int
    height: int
    width: int
    stored_channels: int
    channels_first: bool

    @property
    def channels(self) -> int:
        """Channels of the images that are read; opacity is not one of them."""
        return min(self.stored_channels, 3)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image that is read."""
        return self.height, self.width, self.channels

    @property
    def has_opacity(self) -> bool:
        return self.stored_channels == 4

    def stored(self, images_NX: NDArray[Any]) -> NDArray[Any]:
        """Some of the stored images with their channels last, (N, H, W, stored channels), as a view."""
        if images_NX.ndim == 3:
            return images_NX[..., None]
        return np.moveaxis(images_NX, 1, -1) if self.channels_first else images_NX

    def read(self, images_NX: NDArray[Any], background: Background) -> NDArray[np.uint8]:
        """Some of the stored images, as (N, H, W, channels) uint8."""
        pixels = self.stored(images_NX)
        if pixels.dtype == np.bool_:
            pixels = np.where(pixels, np.uint8(255), np.uint8(0))
        return laid_on(pixels, background) if self.has_opacity else np.ascontiguousarray(pixels)


def layout_of(shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Layout:
    """The layout of an array: N × H × W, or with 1, 3 or 4 channels as its last or, if it is none, as its second axis.

    Raises:
        DatasetError: it is no array of images; the message starts with ``what`` and names the cure.
    """
    cure = ""
    if dtype not in (np.uint8, np.bool_):
        cure = {
            "f": ". Save them so once; values from 0 to 1: np.round(255 * images).astype(np.uint8)",
            "i": ". If they are from 0 to 255, save images.astype(np.uint8)",
            "u": ". If they are from 0 to 255, save images.astype(np.uint8)",
        }.get(dtype.kind, "")
    elif 0 not in shape:
        if len(shape) == 3:
            return Layout(*shape, stored_channels=1, channels_first=False)
        if len(shape) == 4 and shape[3] in CHANNELS:
            return Layout(*shape, channels_first=False)
        if len(shape) == 4 and shape[1] in CHANNELS:
            return Layout(shape[0], shape[2], shape[3], shape[1], channels_first=True)
        if len(shape) == 2:
            cure = ". If each row is an image, save images.reshape(-1, height, width)"
    raise DatasetError(
        f"{what} is {dtype} {times(shape)}; images must be uint8 (0 to 255) or bool, number × height × width, with 1, 3 or 4 "
        f"channels after or before height × width if they have any{cure}."
    )


def label_values(values: NDArray[Any], what: str) -> NDArray[Any]:
    """Labels as they are stored: (N,) int64 in [0, MOST_CLASSES), or text.

    Raises:
        DatasetError: a label is negative or too large, or text in another encoding than UTF-8; the message starts with ``what``.
    """
    values_N = values.reshape(-1)
    if values_N.dtype.kind in "US":
        try:
            return values_N if values_N.dtype.kind == "U" else np.char.decode(values_N, "utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{what}: names of classes are no UTF-8 ({error.object!r}). Save them as text, such as "
                'np.char.decode(labels, "latin-1").'
            ) from error
    if values_N.min() < 0 or values_N.max() >= MOST_CLASSES:
        raise DatasetError(
            f"{what}: labels range from {values_N.min()} to {values_N.max()}; they must start at 0, and be less than "
            f"{MOST_CLASSES:,}. If they are numbers of another kind, save numpy.unique(labels, return_inverse=True)[1]."
        )
    return values_N.astype(np.int64)


def check_labels(shape: tuple[int, ...], dtype: np.dtype[Any], count: int, what: str) -> None:
    """Raises DatasetError unless an array has one whole number or one name for each of ``count`` images: (N,) or (N, 1)."""
    if dtype.kind in "iubUS" and shape in ((count,), (count, 1)):
        size = count * {"U": dtype.itemsize, "S": 4 * dtype.itemsize}.get(dtype.kind, 8)
        if size > LARGEST_LABELS:
            raise DatasetError(
                f"{what} is {dtype} {times(shape)}, which takes {size:,} bytes of memory; labels may take {LARGEST_LABELS:,}. Save "
                "whole numbers in place of names, or fewer images in a file."
            )
        return
    one_hot = len(shape) == 2 and shape[0] == count and dtype.kind in "iubf"
    cure = " If they are one-hot, save labels.argmax(axis=1)." if one_hot else ""
    raise DatasetError(
        f"{what} is {dtype} {times(shape)}; labels must be a whole number or a name for each of the {count:,} images.{cure}"
    )


def names_in(values_N: NDArray[Any]) -> tuple[str, ...]:
    """The names of the classes: those that occur, sorted, or the numbers up to the largest."""
    if values_N.dtype.kind == "U":
        return tuple(sorted({str(name) for name in values_N}))
    return tuple(str(label) for label in range(1 + int(values_N.max())))


def label_numbers(values_N: NDArray[Any], names: tuple[str, ...], what: str) -> NDArray[np.int64]:
    """The labels (N,) int64 in [0, number of classes).

    Raises:
        DatasetError: a label or a name is of no class; the message starts with ``what``.
    """
    if values_N.dtype.kind == "U":
        label_of = {name: label for label, name in enumerate(names)}
        unknown = sorted({str(name) for name in values_N} - set(label_of))
        if unknown:
            raise DatasetError(
                f"{what} has the class {unknown[0]!r}, which is none of the {len(names)} classes. Set class_names to the names of "
                "all classes, or correct the labels."
            )
        return np.array([label_of[str(name)] for name in values_N], dtype=np.int64)
    if values_N.max() >= len(names):
        raise DatasetError(
            f"{what} has the label {values_N.max()}, but the {len(names)} classes are 0 to {len(names) - 1}. "
            "Set class_names to the names of all classes, or correct the labels."
        )
    return values_N


@final
class ArrayRows(ImageReader):
    """Rows of an array of images in memory."""

    def __init__(self, images_NX: NDArray[Any], labels_N: NDArray[np.int64], layout: Layout, background: Background) -> None:
        self._images_NX, self._labels_N, self._layout, self._background = images_NX, labels_N, layout, background

    def __len__(self) -> int:
        return len(self._labels_N)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            chosen = slice(first, min(first + rows, stop))
            yield ImageBlock(self._layout.read(self._images_NX[chosen], self._background), self._labels_N[chosen])


def times(shape: tuple[int, ...]) -> str:
    """A shape, for messages."""
    return " × ".join(map(str, shape)) or "without dimensions"
