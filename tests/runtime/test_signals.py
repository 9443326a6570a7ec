"""What is said of a signal that ends a command: that the work goes on from where it stands, of work that does."""

from __future__ import annotations

import pytest

from rarkit.runtime.signals import Stopped, keeping_what_is_finished


def stopped(*notes):
    stop = Stopped(2)
    for note in notes:
        stop.add_note(note)
    return stop


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (stopped(), "stopped by SIGINT. What is finished is kept: the same command goes on from there."),
        (stopped("Training stands at step 3."), "stopped by SIGINT. Training stands at step 3."),
    ],
)
def test_work_that_goes_on_says_so(stop, told):
    with pytest.raises(Stopped) as caught, keeping_what_is_finished():
        raise stop
    assert str(caught.value) == told


def test_other_commands_promise_nothing():
    assert str(stopped()) == "stopped by SIGINT."
