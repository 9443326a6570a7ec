"""What would end the process is an error that names the part, unless the user ends it."""

from __future__ import annotations

import os
import re
import signal
from typing import Literal

import numpy as np
import pytest

from rarkit import ScanOrder
from rarkit.cli.failures import print_traceback
from rarkit.errors import PluginError, RecipeError
from rarkit.registry.exits import exits_are_errors, told
from rarkit.runtime.signals import Stopped, stopping


class Ending(ScanOrder):
    """Does what it is told to."""

    name: Literal["ending"] = "ending"

    def order(self, height, width):
        does[0]()
        return np.arange(height * width)


does = [lambda: None]


@pytest.fixture
def ends():
    """A function that calls a part which then calls ``what``."""

    def end(what):
        does[0] = what
        Ending().order(2, 2)

    return end


def raising(error):
    def call():
        raise error

    return call


def again():
    again()


PART = r"scan order 'ending' of tests\.registry\.test_exits\.Ending"


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        (raising(SystemExit(0)), "would have ended the process: SystemExit: 0 in order, line"),
        (raising(SystemExit()), "would have ended the process: SystemExit in order"),
        (raising(KeyboardInterrupt()), "would have ended the process: KeyboardInterrupt"),
        (raising(GeneratorExit()), "would have ended the process: GeneratorExit"),
        (raising(BrokenPipeError("gone")), "raised BrokenPipeError: gone"),
        (again, "raised RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_part_that_would_end_the_process_is_named(ends, what, fault):
    message = rf"{PART} {fault}.*of test_exits\.py\. Choose another part, or correct this one\.$"
    with pytest.raises(PluginError, match=message), exits_are_errors():
        ends(what)


@pytest.mark.parametrize("error", [ValueError("a bug"), RecipeError("a mistake"), Stopped(15)])
def test_other_exceptions_and_signals_pass(ends, error):
    with pytest.raises(type(error)) as raised, exits_are_errors():
        ends(raising(error))
    assert raised.value is error


def test_a_bug_in_a_part_is_named_after_its_traceback(ends, capfd):
    with pytest.raises(ValueError, match="a bug") as raised:
        ends(raising(ValueError("a bug")))
    print_traceback(ValueError, raised.value, raised.value.__traceback__)
    first, *_, last = capfd.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    where = r"in order, line \d+ of test_exits\.py\. Choose another part, or correct this one\."
    assert re.fullmatch(rf"error: {PART} raised ValueError: a bug {where}", last)


def test_a_users_interrupt_in_a_part_is_no_fault_of_it(ends):
    with pytest.raises(KeyboardInterrupt), exits_are_errors():
        ends(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped), stopping(), exits_are_errors():
        ends(lambda: os.kill(os.getpid(), signal.SIGINT))


def test_what_no_part_raised_passes_but_for_an_exit():
    with pytest.raises(EOFError), exits_are_errors():
        raise EOFError
    message = r"tests\.registry\.test_exits of no plugin would have ended the process: SystemExit: 3"
    with pytest.raises(PluginError, match=message), exits_are_errors():
        raise SystemExit(3)


def test_exceptions_are_told_in_one_line():
    assert told(ValueError("one\n two.")) == "ValueError: one two"
    assert told(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(told(ValueError("long" * 1000))) < 600
