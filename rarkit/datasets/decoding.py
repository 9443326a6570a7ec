"""Decodes images into rows of pixels, in order, in worker processes.

Shape letters: N images (rows), F files of a batch, V views of a file, H, W, C image height, width, channels.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
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
from rarkit.runtime.signals import without_interrupts

BATCH_IMAGES = 16
"""Images that a worker returns at a time: 3 MB at 256 × 256."""
BATCHES_AHEAD = 2
"""Batches that each worker may decode ahead of the reader."""

Result = TypeVar("Result")


@final
@dataclass(frozen=True)
class EncodedImage:
    """One file: its name, its class and its bytes. Without bytes, a worker reads them from the source's file system by name."""

    name: str
    label: int
    data: bytes | None = None


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
        self._kept_F = np.arange(len(source)) if kept_F is None else kept_F
        # A result also holds the labels.
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

    def chosen(self, rows_N: NDArray[np.int64], rows: int) -> Iterator[ImageBlock]:
        if len(rows_N):
            parts = self._picked(rows_N)
            yield from _regrouped(next(parts), parts, len(rows_N), rows)

    def _picked(self, rows_N: NDArray[np.int64]) -> Iterator[ImageBlock]:
        """The rows, in blocks as they are decoded. Each file with one of these rows is decoded once, and no other."""
        views = self._preparation.views
        files_F, place_N = np.unique(rows_N // views, return_inverse=True)
        decoded_N = place_N * views + rows_N % views
        start = 0
        for block in self._decoded(self._kept_F[files_F]):
            stop = start + len(block.labels_N)
            wanted = decoded_N[slice(*np.searchsorted(decoded_N, (start, stop)))] - start
            yield ImageBlock(block.images_NHWC[wanted], block.labels_N[wanted])
            start = stop

    def _decoded(self, files_F: NDArray[np.int64]) -> Iterator[ImageBlock]:
        views = self._preparation.views
        batches = _batches(self._source.encoded(files_F), max(1, BATCH_IMAGES // views))
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
    batches = _batches(source.encoded(np.arange(len(source))), BATCH_IMAGES)
    bad: dict[int, str] = {}
    number = 0
    for reasons in Workers(workers if source.portable else 0).map(partial(_reasons, preparation, source.filesystem), batches):
        for reason in reasons:
            if reason is not None:
                bad[number] = reason
            number += 1
    return bad


def usable_workers() -> int:
    """The CPU cores available to this process, divided among the processes that torchrun started on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@final
class Workers:
    """Worker processes that start on first use and end with this object. With ``count`` 0 the work is done in this process."""

    def __init__(self, count: int, result_bytes: int = 0) -> None:
        """``result_bytes``: the maximum size of the arrays of a result that is returned through shared memory; 0 for none."""
        self._count, self._result_bytes = count, result_bytes
        self._pool: ProcessPoolExecutor | None = None
        self._slots: Slots | None = None

    def map(self, work: Callable[[list[EncodedImage]], Result], batches: Iterable[list[EncodedImage]]) -> Iterator[Result]:
        """The results in order; workers stay a few batches ahead of the caller.

        Raises:
            DatasetError: raised by ``work``, or a worker process died.
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
                # A submission may start another worker.
                with without_interrupts():
                    future = pool.submit(_packed_work, work, batch, slot)
                waiting.append((future, slot))
                if len(waiting) > BATCHES_AHEAD * self._count:
                    yield first()
            while waiting:
                yield first()
        except BrokenProcessPool as error:
            self._pool = None
            raise DatasetError(
                "a worker process that decodes images died: out of memory, or rarkit was called from a script without "
                "`if __name__ == '__main__':`. Lower the dataset's workers, or set it to 0 to decode without them."
            ) from error
        finally:
            for future, slot in waiting:
                future.cancel()
                if slots:
                    # Only once the worker is done: until then it may write to the slot.
                    future.add_done_callback(lambda _, slots=slots, slot=slot: slots.give_back(slot))  # type: ignore[misc]

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, because a fork would copy locks held by torch's and fsspec's threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_obey_parent)
            weakref.finalize(self, _end, self._pool)
            if self._result_bytes:
                self._slots = shared(BATCHES_AHEAD * self._count + 1, self._result_bytes)
        return self._pool


def _end(pool: ProcessPoolExecutor) -> None:
    """Ends the workers at once, for they hold nothing that could be lost.

    One that is still starting would otherwise fail, with a traceback, for want of the semaphores that go with the pool.
    """
    # Python 3.14 has kill_workers for this.
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.kill()


def _obey_parent() -> None:
    """Runs in a worker process, which ignores Ctrl-C and exits when the parent does.

    Otherwise a worker whose parent was killed would wait for work forever, because it holds the write end of its own queue.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="ends with parent").start()


def _packed_work(work: Callable[[list[EncodedImage]], Any], batch: list[EncodedImage], slot: Slot | None) -> Any:
    return packed(work(batch), slot)


def _batches(images: Iterator[EncodedImage], count: int) -> Iterator[list[EncodedImage]]:
    while batch := list(islice(images, count)):
        yield batch


def _crops(
    preparation: Preparation, filesystem: Any, batch: list[EncodedImage]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Crops, labels, and the name of the first image with transparent pixels, empty if there is none."""
    prepared = [preparation(_data(filesystem, image), image.name) for image in batch]
    images_NHWC = np.concatenate([views for views, _ in prepared])
    transparent = next((image.name for image, (_, is_transparent) in zip(batch, prepared, strict=True) if is_transparent), "")
    return images_NHWC, np.array([image.label for image in batch], dtype=np.int64), transparent


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
    with reaching(image.name, "It existed when the dataset was opened."):
        return bytes(filesystem.cat_file(image.name))


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
