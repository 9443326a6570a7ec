"""Progress of shared work: the first rank shows the sum of what all have done, from first to last."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from rarkit.runtime import shared_progress
from rarkit.runtime.ranks import ALONE
from rarkit.runtime.shared_progress import shared_task
from tests.rank_threads import threads


class Shown:
    """A reporter that keeps what it is to show."""

    def __init__(self):
        self.asked, self.steps = [], []

    @contextmanager
    def task(self, *asked):
        self.asked.append(asked)
        yield lambda n, note="": self.steps.append(n)


@pytest.mark.parametrize("pause", [0.0, 0.5])
def test_the_first_rank_shows_what_all_have_done(pause, monkeypatch):
    monkeypatch.setattr(shared_progress, "SECONDS_BETWEEN_SUMS", pause)
    reporters = [Shown() for _ in range(3)]

    def work(ranks):
        with shared_task(ranks, reporters[ranks.rank], "sample", 72, "images", 12) as advance:
            # From another thread, as stages do whose results are stored in the background.
            background = threading.Thread(target=lambda: [advance(ranks.rank + 1) for _ in range(10)])
            background.start()
            background.join()
        return True

    assert threads(3, work) == [True] * 3
    for shown in reporters:
        assert shown.asked == [("sample", 72, "images", 12)]
        assert sum(shown.steps) == 60
        assert min(shown.steps) >= 0


def test_a_single_rank_shows_its_own_at_once():
    shown = Shown()
    with shared_task(ALONE, shown, "sample", 3, "images") as advance:
        advance(2)
        assert shown.steps == [2]
        advance(1)
    assert shown.steps == [2, 1]


def test_whoever_fails_does_not_wait_for_the_others():
    def work(ranks):
        if ranks.rank == 0:
            with pytest.raises(ValueError, match="broken"), shared_task(ranks, Shown(), "sample", 3, "images"):
                raise ValueError("broken")
        return ranks.rank

    assert threads(2, work) == [0, 1]
