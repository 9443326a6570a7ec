"""Training images: those that are trained on, and those that are held back to choose the best weights by.

Shape letters: N rows of a reader, F images (of which each may have several views), V views, B batch, H, W, C height, width,
channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit import ImageBlock, ImageReader
from rarkit.errors import DatasetError
from rarkit.training import rows_of_step

MOST_HELD_BACK = 256
SHARE_HELD_BACK = 10
"""One image of so many, at most."""
BYTES_IN_MEMORY = 2**29
"""Images of no more than this are read once and kept; others are read in each step, during the one before."""


@final
class Chosen(ImageReader):
    """Some rows of another reader."""

    def __init__(self, reader: ImageReader, rows_N: NDArray[np.int64], views: int = 1) -> None:
        """``rows_N``: ascending, each at most once; so many consecutive ones are views of one image."""
        self._reader, self._rows_N, self.views = reader, rows_N, views

    def __len__(self) -> int:
        return len(self._rows_N)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        return self._reader.chosen(self._rows_N[start:stop], rows)

    def chosen(self, rows_N: NDArray[np.int64], rows: int) -> Iterator[ImageBlock]:
        return self._reader.chosen(self._rows_N[rows_N], rows)


def divided(reader: ImageReader, seed: int) -> tuple[Chosen, Chosen]:
    """The images to train on, with all their views, and those held back, with the first: a tenth, drawn by seed, and at most
    ``MOST_HELD_BACK``.

    Raises:
        DatasetError: there are fewer than two.
    """
    views = reader.views
    count = len(reader) // views
    if count < 2:
        raise DatasetError(
            f"tokenizer 'vq' needs two training images or more, one of them to hold back, but has {count}. Add some."
        )
    held = min(MOST_HELD_BACK, max(1, count // SHARE_HELD_BACK))
    drawn_F = rows_of_step(seed, 0, count, count)
    rows_FV = np.sort(drawn_F[held:])[:, None] * views + np.arange(views)
    return Chosen(reader, rows_FV.flatten(), views), Chosen(reader, np.sort(drawn_F[:held]) * views)


@final
class Pictures:
    """Images of a reader by their numbers: from memory if there is room, or else read ahead in a thread."""

    def __init__(self, reader: ImageReader, beside: Pictures | None = None) -> None:
        """``beside``: others of the same images, with which it shares the thread."""
        self._reader = reader
        [first] = reader.blocks(0, 1, 1)
        self.shape = first.images_NHWC.shape[1:]
        """Height, width and channels."""
        self._kept_NHWC = reader.read().images_NHWC if len(reader) * first.images_NHWC.nbytes <= BYTES_IN_MEMORY else None
        # A reader need not serve several threads.
        self._thread: ThreadPoolExecutor = ThreadPoolExecutor(1) if beside is None else beside._thread
        self._now: dict[bytes, Future[NDArray[np.uint8]]] = {}
        self._ahead: dict[bytes, Future[NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self._reader)

    def rows(self, rows_B: NDArray[np.int64], next_B: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Images (B, H, W, C) uint8; rows may repeat, in any order.

        ``next_B``: what will be asked for in the same pass of the next step. Networks that are trained in turn ask for the passes
        of a step in turn, and what is read for the first is kept for the others.
        """
        if self._kept_NHWC is not None:
            return self._kept_NHWC[rows_B]
        if next_B is None:
            return self._thread.submit(self._read, rows_B).result()
        key, ahead = rows_B.tobytes(), next_B.tobytes()
        if key not in self._now and key in self._ahead:
            self._now, self._ahead = self._ahead, {}
        if key not in self._now:
            self._now[key] = self._thread.submit(self._read, rows_B)
        if ahead not in self._ahead:
            self._ahead[ahead] = self._thread.submit(self._read, next_B)
        return self._now[key].result()

    def _read(self, rows_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([image for image, _ in self._reader.__getitems__(rows_B.tolist())])
