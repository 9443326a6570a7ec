"""Decodes images into rows of pixels, in order, in worker processes.

Shape letters: N images (rows), F files of a batch, V views of a file, H, W, C image height, width, channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.image_bounds import LARGEST_FILE
from rarkit.datasets.preparation import Preparation
from rarkit.datasets.workers import Workers
from rarkit.errors import ImageError
from rarkit.files.locations import reaching
from rarkit.files.regular import read_on
from rarkit.images import ImageBlock, ImageReader

BATCH_IMAGES = 16
"""Images that a worker returns at a time: 3 MB at 256 × 256."""
BATCH_BYTES = 2**26
"""Encoded images that are sent to a worker at a time, but for the last of them."""


@final
@dataclass(frozen=True)
class EncodedImage:
    """One file: its name, its class and its bytes. Without bytes, a worker reads them from the source's file system by name."""

    name: str
    label: int
    data: bytes | None = None
    refusal: str = ""
    """Why it is not read: a sentence that names it."""


class Source(ABC):
    """Encoded images in a fixed order."""

    key: str
    """Identifies the content: equal keys mean equal files."""
    filesystem: Any = None
    """The file system from which workers read images without data (a picklable fsspec file system)."""
    portable: bool = True
    """Whether other processes see the same files."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of files."""

    @abstractmethod
    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        """The files with these numbers, which ascend. Raises DatasetError if they cannot be read."""

    def labels(self) -> NDArray[np.int64] | None:
        """The class of each file (F,); None, as here, if that is told by ``encoded`` alone."""
        return None


@final
class DecodedReader(ImageReader):
    """The rows of a source: all views of its first file, then of the next, and so on. ``kept_F`` selects files."""

    def __init__(
        self,
        source: Source,
        preparation: Preparation,
        workers: int,
        kept_F: NDArray[np.int64] | None = None,
        on_transparent: Callable[[str], None] = lambda name: None,
    ) -> None:
        """``on_transparent`` is called, in this process, with the name of an image with transparent pixels, once a batch."""
        self._source, self._preparation, self._on_transparent = source, preparation, on_transparent
        self.views = preparation.views
        self._kept_F = np.arange(len(source)) if kept_F is None else kept_F
        # A result also holds the labels.
        batch_bytes = BATCH_IMAGES * (3 * preparation.size**2 + np.dtype(np.int64).itemsize)
        self._workers = Workers(workers if source.portable else 0, batch_bytes)

    def __len__(self) -> int:
        return len(self._kept_F) * self.views

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        views = self.views
        files_F = self._kept_F[start // views : -(-stop // views)]
        if start >= stop:
            return
        parts = self._decoded(files_F)
        first = next(parts)
        trimmed = ImageBlock(first.images_NHWC[start % views :], first.labels_N[start % views :])
        yield from _regrouped(trimmed, parts, stop - start, rows)

    def chosen(self, rows_N: NDArray[np.int64], rows: int) -> Iterator[ImageBlock]:
        if len(rows_N):
            parts = self._picked(rows_N)
            yield from _regrouped(next(parts), parts, len(rows_N), rows)

    def _picked(self, rows_N: NDArray[np.int64]) -> Iterator[ImageBlock]:
        """The rows, in blocks as they are decoded. Each file with one of these rows is decoded once, and no other."""
        views = self.views
        files_F, place_N = np.unique(rows_N // views, return_inverse=True)
        decoded_N = place_N * views + rows_N % views
        start = 0
        for block in self._decoded(self._kept_F[files_F]):
            stop = start + len(block.labels_N)
            wanted = decoded_N[slice(*np.searchsorted(decoded_N, (start, stop)))] - start
            yield ImageBlock(block.images_NHWC[wanted], block.labels_N[wanted])
            start = stop

    def _decoded(self, files_F: NDArray[np.int64]) -> Iterator[ImageBlock]:
        views = self.views
        images = zip(files_F.tolist(), self._source.encoded(files_F), strict=True)
        batches = _batches(images, max(1, BATCH_IMAGES // views))
        work = partial(_crops, self._preparation, self._source.filesystem)
        # A few images are decoded faster in this process than by starting or asking workers.
        apply = self._workers.map if len(files_F) * views > BATCH_IMAGES else map
        for images_NHWC, labels_F, transparent in apply(work, batches):
            if transparent:
                self._on_transparent(transparent)
            yield ImageBlock(images_NHWC, np.repeat(labels_F, views))


def faults(source: Source, preparation: Preparation, workers: int) -> dict[int, str]:
    """Decodes every file and returns the reason for each file that cannot be decoded, by number.

    Raises:
        DatasetError: a file cannot be read, which says nothing about the image.
    """
    batches = _batches(enumerate(source.encoded(np.arange(len(source)))), BATCH_IMAGES)
    bad: dict[int, str] = {}
    for reasons in Workers(workers if source.portable else 0).map(partial(_reasons, preparation, source.filesystem), batches):
        bad |= reasons
    return bad


Numbered = tuple[int, EncodedImage]
"""An image and its number in its source."""


def _batches(images: Iterator[Numbered], count: int) -> Iterator[list[Numbered]]:
    batch: list[Numbered] = []
    for number, image in images:
        batch.append((number, image))
        if len(batch) == count or sum(len(each.data or b"") for _, each in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


SKIPPING = 'on_bad_image = "skip" in [dataset] leaves out images that cannot be read.'


def _crops(preparation: Preparation, filesystem: Any, batch: list[Numbered]) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Crops, labels, and the name of the first image with transparent pixels, empty if there is none."""
    try:
        prepared = [preparation(_data(filesystem, image), image.name, number) for number, image in batch]
    except ImageError as error:
        raise ImageError(f"{error} {SKIPPING}") from error
    images_NHWC = np.concatenate([views for views, _ in prepared])
    images = [image for _, image in batch]
    transparent = next((image.name for image, (_, is_transparent) in zip(images, prepared, strict=True) if is_transparent), "")
    return images_NHWC, np.array([image.label for image in images], dtype=np.int64), transparent


def _reasons(preparation: Preparation, filesystem: Any, batch: list[Numbered]) -> dict[int, str]:
    reasons = {}
    for number, image in batch:
        try:
            preparation.check(_data(filesystem, image), image.name)
        except ImageError as error:
            reasons[number] = str(error)
    return reasons


def _data(filesystem: Any, image: EncodedImage) -> bytes:
    if image.refusal:
        raise ImageError(image.refusal)
    if image.data is not None:
        return image.data
    with reaching(image.name, "It existed when the dataset was opened."):
        return read_on(filesystem, image.name, LARGEST_FILE, raising=ImageError)


def _regrouped(first: ImageBlock, following: Iterator[ImageBlock], total: int, rows: int) -> Iterator[ImageBlock]:
    """The first ``total`` rows of the blocks, regrouped into blocks of ``rows``."""
    held = [first]
    remaining = total
    while remaining > 0:
        count = min(rows, remaining)
        while sum(len(block.labels_N) for block in held) < count:
            held.append(next(following))
        images_NHWC = np.concatenate([block.images_NHWC for block in held]) if len(held) > 1 else held[0].images_NHWC
        labels_N = np.concatenate([block.labels_N for block in held])
        # A copy, so that a caller who keeps a block does not keep the larger array alive.
        whole = len(labels_N) == count
        yield ImageBlock(images_NHWC if whole else images_NHWC[:count].copy(), labels_N[:count])
        held = [ImageBlock(images_NHWC[count:], labels_N[count:])]
        remaining -= count
