"""Progress of work that several ranks share: the first rank shows what all of them have done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rarkit.runtime.progress import Advance, Reporter
from rarkit.runtime.ranks import Ranks

SECONDS_BETWEEN_SUMS = 0.5


@contextmanager
def shared_task(ranks: Ranks, reporter: Reporter, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """``Reporter.task`` of the work of all ranks, each of which calls this; they leave it together, unless by an exception.

    Args:
        ranks: those that share the work.
        reporter: shows the progress; that of the first rank alone shows anything.
        description, total, unit: as of ``Reporter.task``; the total is that of all ranks.
        done: how much was finished before, by whichever rank.
    """
    with reporter.task(description, total, unit, done) as shown:
        if ranks.size == 1:
            yield shown
            return
        count, changing = ranks.counter(), threading.Lock()
        own = told = 0
        looked = time.monotonic()

        def look(note: str = "") -> None:
            nonlocal own, told, looked
            with changing:
                own, given = 0, own
                now = count(given)
                shown(now - told, note)
                told, looked = now, time.monotonic()

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal own
            with changing:
                own += n
            if time.monotonic() - looked >= SECONDS_BETWEEN_SUMS:
                look(note)

        yield advance
        look()
        ranks.meet(meanwhile=look)
