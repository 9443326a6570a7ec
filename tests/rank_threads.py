"""Ranks as threads, on a store in memory, for what needs no processes of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rarkit.errors import RarkitError
from rarkit.runtime.ranks import Ranks
from tests.processes import HANGS_AFTER


def threads(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What ``work`` of each rank returned or raised, by rank."""
    from torch.distributed import HashStore

    store, found = HashStore(), dict[int, Any]()

    def one(rank: int) -> None:
        try:
            found[rank] = work(Ranks(rank, size, store))
        except RarkitError as error:
            found[rank] = error

    running = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(HANGS_AFTER)
        assert not thread.is_alive()
    return [found[rank] for rank in range(size)]
