"""Encoded images to rows of pixels, in worker processes, in order.

Shape letters: N images (rows), F files of a batch, V views of a file, H, W, C image height, width, channels.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.preparation import Preparation, load_rgb
from rarkit.datasets.shared_memory import Slot, Slots, packed, shared
from rarkit.errors import DatasetError
from rarkit.files.locations import reaching
from rarkit.images import ImageBlock, ImageReader

BATCH_IMAGES = 16
"""Images that travel back from a worker at once: 3 MB at 256 × 256."""
BATCHES_AHEAD = 2
"""Batches that each worker may be ahead of the reader."""

Result = TypeVar("Result")


@final
@dataclass(frozen=True)
class EncodedImage:
    """One file: its name for errors, its class, and its bytes; or, for a worker to fetch, where they are."""

    name: str
    label: int
    data: bytes | None = None


class Source(ABC):
    """Encoded images in a fixed order."""

    key: str
    """Tells one content from another."""
    filesystem: Any = None
    """Where workers fetch what comes without data (an fsspec file system, which can be pickled)."""
    portable: bool = True
    """Whether another process sees the same files."""

    @abstractmethod
    def __len__(self) -> int:
        """How many files."""

    @abstractmethod
    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        """These files, by ascending number. Raises DatasetError if they cannot be reached."""


@final
class DecodedReader(ImageReader):
    """Rows of a source: each of the files that are kept in turn, all its views one after the other."""

    def __init__(self, source: Source, preparation: Preparation, workers: int, kept_F: NDArray[np.int64] | None = None) -> None:
        self._source, self._preparation = source, preparation
        self._kept_F = np.arange(len(source)) if kept_F is None else kept_F
        # Labels travel with the images.
        batch_bytes = BATCH_IMAGES * (3 * preparation.size**2 + np.dtype(np.int64).itemsize)
        self._workers = Workers(workers if source.portable else 0, batch_bytes)

    def __len__(self) -> int:
        return len(self._kept_F) * self._preparation.views

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        views = self._preparation.views
        files_F = self._kept_F[start // views : -(-stop // views)]
        if start >= stop:
            return
        parts = self._decoded(files_F)
        first = next(parts)
        trimmed = ImageBlock(first.images_NHWC[start % views :], first.labels_N[start % views :])
        yield from _regrouped(trimmed, parts, stop - start, rows)

    def _decoded(self, files_F: NDArray[np.int64]) -> Iterator[ImageBlock]:
        views = self._preparation.views
        batches = _batches(self._source.encoded(files_F), max(1, BATCH_IMAGES // views))
        work = partial(_crops, self._preparation, self._source.filesystem)
        # Who asks for a few images at a time is served sooner without other processes.
        apply = self._workers.map if len(files_F) * views > BATCH_IMAGES else map
        for images_NHWC, labels_F in apply(work, batches):
            yield ImageBlock(images_NHWC, np.repeat(labels_F, views))


def faults(source: Source, preparation: Preparation, workers: int) -> dict[int, str]:
    """Decodes every file, and tells which cannot be decoded, by number, and why.

    Raises:
        DatasetError: a file cannot be reached; that says nothing of the image.
    """
    batches = _batches(source.encoded(np.arange(len(source))), BATCH_IMAGES)
    found: dict[int, str] = {}
    number = 0
    for reasons in Workers(workers if source.portable else 0).map(partial(_reasons, preparation, source.filesystem), batches):
        for reason in reasons:
            if reason is not None:
                found[number] = reason
            number += 1
    return found


def usable_workers() -> int:
    """The processor cores that this process may use, shared with the processes that a launcher started beside it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@final
class Workers:
    """Processes that start when they are first needed, and end with this object. None at all, if ``count`` is 0."""

    def __init__(self, count: int, result_bytes: int = 0) -> None:
        """``result_bytes``: how large the arrays of a result may be that comes back through shared memory."""
        self._count, self._result_bytes = count, result_bytes
        self._pool: ProcessPoolExecutor | None = None
        self._slots: Slots | None = None

    def map(self, work: Callable[[list[EncodedImage]], Result], batches: Iterable[list[EncodedImage]]) -> Iterator[Result]:
        """The results in order; a few batches are under way while one is looked at.

        Raises:
            DatasetError: what ``work`` raised, or a process ended without a word.
        """
        if self._count == 0:
            yield from map(work, batches)
            return
        pool, slots = self._started(), self._slots
        waiting: deque[tuple[Future[Any], Slot | None]] = deque()

        def first() -> Result:
            future, slot = waiting[0]
            result: Result = slots.unpacked(future.result(), slot) if slots else future.result()
            waiting.popleft()
            if slots:
                slots.give_back(slot)
            return result

        try:
            for batch in batches:
                slot = slots.take() if slots else None
                waiting.append((pool.submit(_packed_work, work, batch, slot), slot))
                if len(waiting) > BATCHES_AHEAD * self._count:
                    yield first()
            while waiting:
                yield first()
        except BrokenProcessPool as error:
            self._pool = None
            raise DatasetError(
                "a process that decodes images ended without a word: killed for want of memory, or rarkit was called from a script "
                "without `if __name__ == '__main__':`. Set the dataset's workers to fewer, or to 0 to decode without them."
            ) from error
        finally:
            for future, slot in waiting:
                future.cancel()
                if slots:
                    # Not before the worker has ended: until then it may write there.
                    future.add_done_callback(lambda _, slots=slots, slot=slot: slots.give_back(slot))  # type: ignore[misc]

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, since a fork would copy the locks of torch's and fsspec's threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_end_with_parent)
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
            if self._result_bytes:
                self._slots = shared(BATCHES_AHEAD * self._count + 1, self._result_bytes)
        return self._pool


def _end_with_parent() -> None:
    """In a worker process: ends it when its parent does.

    A worker whose parent was killed would wait for work for ever: it holds the writing end of its own queue.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="ends with parent").start()


def _packed_work(work: Callable[[list[EncodedImage]], Any], batch: list[EncodedImage], slot: Slot | None) -> Any:
    return packed(work(batch), slot)


def _batches(images: Iterator[EncodedImage], count: int) -> Iterator[list[EncodedImage]]:
    while batch := list(islice(images, count)):
        yield batch


def _crops(preparation: Preparation, filesystem: Any, batch: list[EncodedImage]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images_NHWC = np.concatenate([preparation(_data(filesystem, image), image.name) for image in batch])
    return images_NHWC, np.array([image.label for image in batch], dtype=np.int64)


def _reasons(preparation: Preparation, filesystem: Any, batch: list[EncodedImage]) -> list[str | None]:
    reasons: list[str | None] = []
    for image in batch:
        data = _data(filesystem, image)
        try:
            load_rgb(data, image.name, exif=preparation.exif)
        except DatasetError as error:
            reasons.append(str(error))
        else:
            reasons.append(None)
    return reasons


def _data(filesystem: Any, image: EncodedImage) -> bytes:
    if image.data is not None:
        return image.data
    with reaching(image.name, "It was there when the dataset was opened."):
        return bytes(filesystem.cat_file(image.name))


def _regrouped(first: ImageBlock, others: Iterator[ImageBlock], total: int, rows: int) -> Iterator[ImageBlock]:
    """The first ``total`` rows of all these blocks, in blocks of ``rows``."""
    held = [first]
    left = total
    while left > 0:
        wanted = min(rows, left)
        while sum(len(block.labels_N) for block in held) < wanted:
            held.append(next(others))
        images_NHWC = np.concatenate([block.images_NHWC for block in held]) if len(held) > 1 else held[0].images_NHWC
        labels_N = np.concatenate([block.labels_N for block in held])
        # A copy, so that a caller who keeps a block keeps that block alone.
        whole = len(labels_N) == wanted
        yield ImageBlock(images_NHWC if whole else images_NHWC[:wanted].copy(), labels_N[:wanted])
        held = [ImageBlock(images_NHWC[wanted:], labels_N[wanted:])]
        left -= wanted
