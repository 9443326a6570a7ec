"""The thread that works behind: in order, bounded, and never silent about what went wrong."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.runtime.background import Background


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 30), waiting=st.integers(1, 5))
def test_items_are_worked_on_in_order_and_few_are_in_flight(count, waiting):
    done, begun, most = [], 0, 0

    def work(item):
        time.sleep(0.0002)
        done.append(item)

    with Background(work, waiting=waiting) as behind:
        for item in range(count):
            behind.put(item)
            begun += 1
            most = max(most, begun - len(done))
    assert done == list(range(count))
    # Those that wait, the one in hand, and none besides.
    assert most <= waiting + 1


def test_the_owner_waits_for_room():
    gate, taken = threading.Event(), []
    with Background(lambda item: (taken.append(item), gate.wait(10)), waiting=1) as behind:
        behind.put(0)
        while not taken:
            time.sleep(0.001)
        behind.put(1)
        late = threading.Thread(target=behind.put, args=(2,))
        late.start()
        late.join(0.1)
        assert late.is_alive(), "there was room where there should be none"
        gate.set()
        late.join(10)
        assert not late.is_alive()
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("call", ["put", "check", "settle", "leave"])
def test_what_goes_wrong_behind_is_raised_by_the_next_call(call):
    worked = []

    def work(item):
        worked.append(item)
        raise ValueError("no such picture")

    def owner():
        with Background(work, waiting=3) as behind:
            behind.put(0)
            if call != "leave":
                behind._thread.join(10)
                getattr(behind, call)(*([1] if call == "put" else []))
                raise AssertionError("it was not raised")

    with pytest.raises(ValueError, match="no such picture"):
        owner()
    assert worked == [0]


def test_an_owner_that_waits_for_room_hears_of_an_error():
    gate = threading.Event()

    def work(item):
        gate.wait(10)
        raise ValueError("no such picture")

    def owner():
        with Background(work, waiting=1) as behind:
            threading.Timer(0.05, gate.set).start()
            for item in range(9):
                behind.put(item)
            raise AssertionError("nine items found room")

    with pytest.raises(ValueError, match="no such picture"):
        owner()


def test_an_owner_that_fails_finishes_what_is_in_hand_and_drops_the_rest():
    begun, done = threading.Event(), []

    def work(item):
        begun.set()
        while not behind._closed:
            time.sleep(0.001)
        done.append(item)

    def owner(behind):
        with behind:
            for item in range(4):
                behind.put(item)
            begun.wait()
            raise KeyboardInterrupt

    behind = Background(work, waiting=5)
    with pytest.raises(KeyboardInterrupt):
        owner(behind)
    assert done == [0]
    assert not behind._thread.is_alive()


def test_settling_waits_for_all_and_the_thread_has_its_own_surroundings():
    events = []

    @contextmanager
    def around():
        events.append(("in", threading.current_thread().name))
        yield
        events.append(("out", threading.current_thread().name))

    def work(item):
        time.sleep(0.01)
        events.append(item)

    with Background(work, waiting=4, around=around) as behind:
        behind.settle()
        for item in range(3):
            behind.put(item)
        behind.settle()
        assert events[1:] == [0, 1, 2]
    assert events == [("in", "rarkit-background"), 0, 1, 2, ("out", "rarkit-background")]


def test_interrupted_while_it_waits_at_the_end_the_item_in_hand_is_finished():
    done = []

    def work(item):
        time.sleep(0.05)  # by now, the owner is in the exit of its context
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)
        done.append(item)

    def owner():
        with Background(work, waiting=3) as behind:
            for item in range(3):
                behind.put(item)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            owner()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert done == [0]
