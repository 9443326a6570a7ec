"""The processes of one run, as ``torchrun`` starts them: ranks that share the work, or wait while the first does it.

Ranks exchange a few words through the key-value store that torchrun keeps, and files through the stage's output: no tensors, hence
no process group. Waiting asks the store again and again instead of entering a collective: it never times out, however long the
first rank trains, and signals and failures of other ranks are heard while it lasts.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, final

from rarkit.errors import CapabilityError, RankError, RarkitError, StoreError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Told = TypeVar("Told")

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun puts into the environment."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
LEAVE_SECONDS = 10.0
"""How long a rank that failed waits for the others to hear of it."""
FAILED, LEFT = "failed", "left"


@final
class Ranks:
    """This process among those of its run. Every rank has to call ``told`` and ``meet`` equally often, in the same order."""

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        """``rank`` in [0, size); a store that all of them reach, where there are several."""
        assert (store is None) == (size == 1), (store, size)
        self.rank, self.size = rank, size
        self.terminated = False
        self._store = store
        self._calls = 0
        self._looked = 0.0

    @property
    def first(self) -> bool:
        """Whether this is the rank that holds locks, speaks to the user and does what cannot be shared."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"rank {self.rank} on {platform.node()}"

    def told(self, value: Callable[[], Told]) -> Told:
        """What the first rank finds, which alone calls ``value``: plain JSON data."""
        if self._store is None:
            return value()
        key = self._key()
        if self.first:
            found = value()
            with _launcher():
                self._store.set(key, json.dumps(found))
            return found
        store = self._store
        self._wait(lambda: store.check([key]))
        with _launcher():
            heard: Told = json.loads(store.get(key))
        return heard

    def meet(self) -> None:
        """Waits until all ranks have come here."""
        if self._store is None:
            return
        key, store = self._key(), self._store
        with _launcher():
            store.add(key, 1)
        self._wait(lambda: store.add(key, 0) >= self.size)

    def agree(self, what: str, own: Any) -> None:
        """Waits until all ranks are here with the same plain data.

        Raises:
            StoreError: this rank's differs from the first's.
        """
        if self.told(lambda: own) != own:
            raise StoreError(
                f"{what} is another than that of the first rank: {json.dumps(own)}. All ranks need the same store (a folder that "
                "they share, or an s3:// address), recipe, data and version of rarkit."
            )
        self.meet()

    def check_sees(self, path: str, exists: Callable[[], bool]) -> None:
        """Raises StoreError where this rank does not see what the first has written."""
        if not (self.first or exists()):
            raise StoreError(
                f"what the first rank wrote to {path} is not there for this one. All ranks need the same store: a folder "
                "that they share, or an s3:// address."
            )

    def check(self) -> None:
        """Raises RankError once another rank has failed. Quick: asks twice a second at most."""
        if self._store is None or time.monotonic() - self._looked < LONGEST_PAUSE:
            return
        self._looked = time.monotonic()
        said = self._failure()
        if said is not None:
            raise RankError(said, told=not self.first)

    def device(self, device: str) -> str:
        """The torch device of this rank: where ranks are to use CUDA, each takes the GPU of its number on its machine.

        Raises:
            CapabilityError: there are fewer GPUs than ranks on this machine.
        """
        if self.size == 1 or device != "cuda":
            return device
        import torch

        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise CapabilityError(f"there are {there} GPUs and more ranks than that. Start torchrun with --nproc-per-node {there}.")
        # Streams and graphs belong to the current device.
        torch.cuda.set_device(local)
        return f"cuda:{local}"

    def failing(self, error: BaseException) -> BaseException:
        """Tells the others why this rank stops, and gives what it has to raise: the first speaks for all."""
        said = self._failure() if self.terminated else None
        if self.terminated:
            reason = said or (
                "the run was stopped from outside (SIGTERM), or one of its processes was killed. What is written is kept: "
                "start it again, and it goes on"
            )
            error = RankError(reason, told=not self.first)
        elif not isinstance(error, RankError):
            self._tell(error)
        if isinstance(error, RarkitError | KeyboardInterrupt) and not self.first:
            return RankError(str(error), told=True)
        return error

    def leave(self) -> None:
        """Says that this rank is done, and waits until all are, so that none goes while others have yet to hear from it."""
        if self._store is None or self.terminated:
            return
        until = time.monotonic() + LEAVE_SECONDS
        try:
            with _launcher():
                self._store.add(LEFT, 1)
                while self._store.add(LEFT, 0) < self.size and time.monotonic() < until:
                    time.sleep(SHORTEST_PAUSE)
        except RankError:
            # The launcher went first: there is nobody left to wait for.
            return

    def _tell(self, error: BaseException) -> None:
        assert self._store is not None
        said = str(error) if isinstance(error, RarkitError) else f"{type(error).__name__} {error}".strip()
        try:
            with _launcher():
                self._store.compare_set(FAILED, "", f"{self.name}: {said}")
        except RankError:
            # The launcher is gone, and the others find that out by themselves.
            return

    def _failure(self) -> str | None:
        assert self._store is not None
        with _launcher():
            return self._store.get(FAILED).decode() if self._store.check([FAILED]) else None

    def _key(self) -> str:
        self._calls += 1
        return f"call {self._calls}"

    def _wait(self, happened: Callable[[], bool]) -> None:
        pause = SHORTEST_PAUSE
        while True:
            with _launcher():
                if happened():
                    return
            self.check()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


ALONE = Ranks()
_joined: Ranks | None = None


@contextmanager
def together() -> Iterator[Ranks]:
    """Joins the other ranks where torchrun started this process, for as long as the body runs; else there is only this one.

    All leave together. If one fails, all others raise RankError as soon as they wait, generate or are told to stop; the lock that
    the first holds is then released. Within another ``together``, it is the same.

    Raises:
        RankError: another rank failed, or the launcher stopped this one.
    """
    global _joined
    if _joined is not None or not _several():
        yield _joined or ALONE
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    with _launcher():
        store, rank, size = next(rendezvous("env://"))
    ranks = _joined = Ranks(rank, size, PrefixStore("rarkit", store))
    restore = _stop_on_sigterm(ranks)
    try:
        yield ranks
        ranks.meet()
        ranks.leave()
        restore()
    except BaseException as error:
        # As soon as one process is gone, the launcher sends SIGTERM to the others; the first has yet to say why.
        _on_sigterm(signal.SIG_IGN)
        raised = ranks.failing(error)
        ranks.leave()
        if raised is error:
            raise
        raise raised from error
    finally:
        _joined = None


def _several() -> bool:
    return all(name in os.environ for name in LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1


def _stop_on_sigterm(ranks: Ranks) -> Callable[[], Any]:
    """Lets SIGTERM unwind this process instead of ending it at once; returns what undoes that."""

    def stop(number: int, frame: object) -> None:
        ranks.terminated = True
        raise SystemExit(128 + number)

    before = _on_sigterm(stop)
    return partial(_on_sigterm, before)


def _on_sigterm(handler: Any) -> Any:
    """Sets what SIGTERM does, and returns what it did; nothing where Python allows none, outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, handler)


@contextmanager
def _launcher() -> Iterator[None]:
    """Turns the loss of torchrun's store into an error of ours."""
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        message = f"torchrun cannot be reached any more ({error}). Start the run again: it goes on."
        raise RankError(message, told=os.environ["RANK"] != "0") from error
