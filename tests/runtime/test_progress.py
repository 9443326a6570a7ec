"""Lines of progress where there is no terminal."""

from __future__ import annotations

import time

import pytest

from rarkit.runtime.progress import Reporter


def lines(monkeypatch, capsys, advances, total=1000, done=0):
    """What is printed if each advance, of so many units, comes so many seconds after the one before."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Reporter().task("train", total, "steps", done) as advance:
        for seconds, units in advances:
            now += seconds
            advance(units, "loss 1.5")
    return capsys.readouterr().err.splitlines()


def test_the_first_step_which_compiles_does_not_count_as_slow(monkeypatch, capsys):
    said = lines(monkeypatch, capsys, [(30, 1), *[(0.5, 1)] * 40])
    assert said[0] == "train: 1/1,000 steps, loss 1.5"
    assert said[1] == "train: 21/1,000 steps, 2.0/s, 0:08:10 left, loss 1.5"
    assert len(said) == 3


@pytest.mark.parametrize("done", [0, 400])
def test_the_time_left_is_that_of_what_is_not_done(monkeypatch, capsys, done):
    [said] = lines(monkeypatch, capsys, [(1, 10), (9, 90)], done=done)
    assert said == f"train: {done + 100}/1,000 steps, 10.0/s, 0:0{'1:30' if done == 0 else '0:50'} left, loss 1.5"


def test_little_work_prints_no_line(monkeypatch, capsys):
    assert lines(monkeypatch, capsys, [(1, 500), (1, 500)]) == []
