"""Joining the processes that torchrun started, and leaving them together."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rarkit.runtime.ranks import ALONE, Ranks, launcher
from rarkit.runtime.signals import handle, raise_stopped, world_size

_joined: Ranks | None = None


@contextmanager
def together() -> Iterator[Ranks]:
    """Yields the ranks of this run, if torchrun started this process, or else a single rank.

    All ranks leave together. If one fails, the others raise RankError as soon as they wait, generate or receive SIGTERM, and the
    first rank's lock is released. A nested ``together`` yields the same ranks.

    Raises:
        RankError: another rank failed, or the launcher stopped this one.
    """
    global _joined
    if _joined is not None or world_size() == 1:
        yield _joined or ALONE
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    with launcher():
        store, rank, size = next(rendezvous("env://"))
    ranks = _joined = Ranks(rank, size, PrefixStore("rarkit", store))
    restore = _stop_on_signals(ranks)
    try:
        yield ranks
        ranks.meet()
        ranks.leave()
        restore()
    except BaseException as error:
        # When a process exits, the launcher sends SIGTERM to the others; the first rank still has to report the reason.
        handle(signal.SIG_IGN)
        raised = ranks.failing(error)
        ranks.leave()
        if raised is error:
            raise
        raise raised from error
    finally:
        _joined = None


def _stop_on_signals(ranks: Ranks) -> Callable[[], None]:
    """Makes SIGTERM unwind this process instead of killing it; returns a function that restores the previous handlers."""

    def stop(number: int, frame: FrameType | None) -> None:
        ranks.terminated = number == signal.SIGTERM
        raise_stopped(number, frame)

    return handle(stop)
