"""The processes of one run, as ``torchrun`` starts them: ranks that share the work, or wait while the first rank does it.

Ranks exchange short messages through torchrun's key-value store, and files through the stage's output. They exchange no tensors, so
there is no process group. A waiting rank polls the store instead of entering a collective: it never times out, however long the
first rank trains, and it notices signals and failures of other ranks while it waits.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, final

from rarkit.errors import CapabilityError, RankError, RarkitError, StoreError
from rarkit.printable import printable
from rarkit.runtime.signals import Stopped

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Told = TypeVar("Told")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two polls: the pause doubles from the first to the second."""
LEAVE_SECONDS = 10.0
"""How long a failed rank waits for the others to read its message."""
REASON_SECONDS = 2.0
"""How long a rank that lost another waits to be told why."""
FAILED, LEFT = "failed", "left"
SAME_STORE = "All ranks need the same store: a shared folder or an s3:// URL"


@final
class Ranks:
    """This process among those of its run.

    All ranks must make the same calls of ``told``, ``gathered`` and ``meet``, in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None, run: Ranks | None = None) -> None:
        """``rank`` in [0, size); ``store``: a key-value store that all ranks reach, or None for a single rank; ``run``: of whose
        ranks these are some."""
        assert (store is None) == (size == 1), (store, size)
        self.rank, self.size = rank, size
        self.terminated = False
        self._lost = False
        self._store, self._run = store, run
        self._calls = 0
        self._looked = 0.0

    @property
    def first(self) -> bool:
        """Whether this is the first rank, which holds locks, prints messages and does the work that cannot be shared."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """Rank and host, for messages."""
        return f"rank {self.rank} on {platform.node()}"

    def alone(self, what: str) -> str:
        """A line for what the first rank does: ``fit: the first rank alone; 3 others wait``, or ``fit`` if there are no others."""
        others = self.size - 1
        return what if others == 0 else f"{what}: the first rank alone; {others} other{' waits' if others == 1 else 's wait'}"

    @cached_property
    def node(self) -> Ranks:
        """The ranks that torchrun started on this machine, this one among them; a single one where it does not say which.

        They make their own calls of ``told`` and ``meet``, and hear of failures on other machines too.
        """
        place = [os.environ.get(name) for name in ("GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
        if self._store is None or None in place or place[2] == "1":
            return ALONE
        group, rank, size = map(int, place)  # type: ignore[arg-type]
        return Ranks(rank, size, self.store(f"node {group}"), self)

    def told(self, value: Callable[[], Told]) -> Told:
        """The first rank's ``value()``, on every rank. Only the first rank calls it; the result is plain JSON data."""
        if self._store is None:
            return value()
        key = self._key()
        if self.first:
            result = value()
            with launcher():
                self._store.set(key, json.dumps(result))
            return result
        store = self._store
        self._wait(lambda: store.check([key]))
        with launcher():
            received: Told = json.loads(store.get(key))
        return received

    def gathered(self, own: Told) -> list[Told]:
        """What each rank gave, plain JSON data, on the first rank; nothing on the others. Waits until all have called this."""
        if self._store is None:
            return [own]
        key, store = self._key(), self._store
        with launcher():
            store.set(f"{key} {self.rank}", json.dumps(own))
        self.meet()
        if not self.first:
            return []
        with launcher():
            return [json.loads(store.get(f"{key} {rank}")) for rank in range(self.size)]

    def meet(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Waits until all ranks have called this; calls ``meanwhile`` at least twice a second of the wait, and after it."""
        if self._store is None:
            return
        key, store = self._key(), self._store
        with launcher():
            store.add(key, 1)
        self._wait(lambda: (store.add(key, 0) >= self.size, meanwhile())[0])

    def counter(self) -> Callable[[int], int]:
        """A count that all ranks, of which there are several, add to: the function adds, from any thread, and returns the sum."""
        key, store = self._key(), self.store("counts")

        def add(n: int) -> int:
            with launcher():
                return store.add(key, n)

        return add

    def check_sees(self, path: str, exists: Callable[[], bool]) -> None:
        """Raises StoreError if this rank does not see what the first rank wrote."""
        if not (self.first or exists()):
            raise StoreError(f"this rank does not see what the first rank wrote to {path}. {SAME_STORE}.")

    def check(self, *, now: bool = False) -> None:
        """Raises RankError if another rank has failed, or torchrun is gone. Cheap: asks at most twice a second, unless ``now``."""
        if self._run is not None:
            return self._run.check(now=now)
        if self._store is None or (time.monotonic() - self._looked < LONGEST_PAUSE and not now):
            return
        self._looked = time.monotonic()
        failure = self._failure()
        if failure is not None:
            raise RankError(failure, told=not self.first)

    def store(self, purpose: str) -> Store:
        """A key-value store of the ranks, for a purpose of its own; there must be several."""
        from torch.distributed.distributed_c10d import PrefixStore

        assert self._store is not None, "a rank alone has nobody to share a store with"
        return PrefixStore(purpose, self._store)

    def reason(self) -> str | None:
        """Why another rank failed, if it says so within seconds: a process that was killed cannot."""
        until = time.monotonic() + REASON_SECONDS
        while (failure := self._failure()) is None and time.monotonic() < until:
            time.sleep(LONGEST_PAUSE)
        self._lost = failure is None
        return failure

    def device(self, device: str) -> str:
        """The torch device of this rank. With CUDA, each rank takes the GPU of its local rank.

        Raises:
            CapabilityError: this machine has fewer GPUs than ranks.
        """
        if self.size == 1 or device != "cuda":
            return device
        import torch

        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise CapabilityError(f"this machine has more ranks than its {gpus} GPUs. Start torchrun with --nproc-per-node {gpus}.")
        # Streams and graphs are created on the current device.
        torch.cuda.set_device(local)
        return f"cuda:{local}"

    def failing(self, error: BaseException) -> BaseException:
        """Tells the other ranks why this one stops, and returns the error to raise; only the first rank reports to the user."""
        failure = self._failure() if self.terminated else None
        if self.terminated:
            reason = failure or (
                "the run was stopped from outside (SIGTERM), or one of its processes was killed. Finished work is kept: "
                "start the run again to continue"
            )
            notes = getattr(error, "__notes__", ())
            error = RankError(". ".join([reason, *notes]), told=not self.first)
        elif not isinstance(error, RankError):
            self._tell(error)
        if isinstance(error, RarkitError | KeyboardInterrupt | Stopped) and not self.first:
            return RankError(str(error), told=True)
        return error

    def leave(self) -> None:
        """Marks this rank as done and waits for the others, so that none exits before the others have read its messages.

        One that was stopped, or that lost another without a word, has none that they do not know.
        """
        if self._store is None:
            return
        until = time.monotonic() + (0 if self.terminated or self._lost else LEAVE_SECONDS)
        try:
            with launcher():
                self._store.add(LEFT, 1)
                while self._store.add(LEFT, 0) < self.size and time.monotonic() < until:
                    time.sleep(SHORTEST_PAUSE)
        except RankError:
            # The launcher has exited: there is no other rank to wait for.
            return

    def _tell(self, error: BaseException) -> None:
        assert self._store is not None
        reason = str(error) if isinstance(error, RarkitError | Stopped) else printable(f"{type(error).__name__} {error}".strip())
        try:
            with launcher():
                self._store.compare_set(FAILED, "", f"{self.name}: {reason}")
        except RankError:
            # The launcher is gone; the other ranks notice it themselves.
            return

    def _failure(self) -> str | None:
        assert self._store is not None
        with launcher():
            return self._store.get(FAILED).decode() if self._store.check([FAILED]) else None

    def _key(self) -> str:
        self._calls += 1
        return f"call {self._calls}"

    def _wait(self, happened: Callable[[], bool]) -> None:
        pause = SHORTEST_PAUSE
        while True:
            with launcher():
                if happened():
                    return
            self.check()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


@contextmanager
def launcher() -> Iterator[None]:
    """Turns the loss of torchrun's store into a RankError."""
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        message = f"lost the connection to torchrun ({error}). Start the run again to continue."
        raise RankError(message, told=os.environ["RANK"] != "0") from error


ALONE = Ranks()
