"""How fast long work goes, and how much time it still takes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import final


@final
class Pace:
    """The pace of what follows the first units, which may have waited for a compiler or for a dataset to be opened."""

    def __init__(self, total: int, done: int) -> None:
        """``total`` units, ``done`` of which were finished before."""
        self.total, self.state = total, done
        self._first: tuple[int, float] | None = None

    def advance(self, n: int) -> None:
        """``n`` more units are done."""
        self.state += n
        if self._first is None:
            self._first = (self.state, time.monotonic())

    def words(self) -> list[str]:
        """Units a second, and the time left; empty while they are unknown."""
        if self._first is None or self.state == self._first[0]:
            return []
        rate = (self.state - self._first[0]) / max(time.monotonic() - self._first[1], 1e-9)
        left = [f"{timedelta(seconds=round((self.total - self.state) / rate))} left"] if self.state < self.total else []
        return [f"{rate:,.1f}/s", *left]
