"""Processes that decode images for this one.

Results come in order, through shared memory where they fit.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar, final

from rarkit.datasets.shared_memory import Slot, Slots, packed, shared
from rarkit.errors import DatasetError
from rarkit.runtime.signals import without_interrupts

BATCHES_AHEAD = 2
"""Batches that each worker may decode ahead of the reader."""

Work = TypeVar("Work")
Result = TypeVar("Result")


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

    def map(self, work: Callable[[Work], Result], batches: Iterable[Work]) -> Iterator[Result]:
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


def _packed_work(work: Callable[[Work], Any], batch: Work, slot: Slot | None) -> Any:
    return packed(work(batch), slot)
