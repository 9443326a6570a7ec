"""Shared memory for results: what goes in comes out, whatever its size, and slots come back."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rarkit.datasets import shared_memory as module
from rarkit.datasets.decoding import EncodedImage
from rarkit.datasets.shared_memory import MOST_BYTES, Packed, Slot, Slots, packed, shared
from rarkit.datasets.workers import BATCHES_AHEAD, Workers

ROW = np.dtype(np.int64).itemsize


def squares(batch):
    """At module level: worker processes look it up by name."""
    return np.arange(batch[0].label) ** 2, batch[0].name


def batches(lengths):
    return ([EncodedImage(str(number), length)] for number, length in enumerate(lengths))


@pytest.fixture(scope="module")
def two_slots():
    return Slots(2, 256)


@given(st.lists(arrays(np.uint8, array_shapes(min_side=0, max_dims=3, max_side=8)), max_size=3))
@settings(deadline=None)
def test_what_is_packed_comes_out(two_slots, found):
    slots = two_slots
    slot = slots.take()
    try:
        sent = packed((found, "words"), slot)
        assert isinstance(sent, Packed) == (sum(array.nbytes for array in found) <= 256)
        arrived, words = slots.unpacked(sent, slot)
    finally:
        slots.give_back(slot)
    assert words == "words"
    for array, other in zip(arrived, found, strict=True):
        np.testing.assert_array_equal(array, other)


def test_no_more_slots_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    slots = shared(99, 300)
    assert [slots.take() is not None for _ in range(4)] == [True, True, True, False]


def test_what_was_unpacked_outlives_its_slot(two_slots):
    first, second = two_slots.take(), two_slots.take()
    assert two_slots.take() is None
    arrived = two_slots.unpacked(packed(np.arange(5), first), first)
    packed(np.zeros(32, np.int64), first)
    packed(np.zeros(32, np.int64), second)
    assert arrived.tolist() == [0, 1, 2, 3, 4]
    two_slots.give_back(first)
    two_slots.give_back(second)


def test_where_there_is_no_such_memory(monkeypatch):
    assert shared(3, MOST_BYTES + 1) is None
    array = np.arange(3)
    assert packed(array, None) is array
    assert packed(array, Slot("/proc/0/fd/0", 0, 99)) is array

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as there:
        there.setattr(os, "posix_fallocate", full)
        assert shared(1, 1) is None
    monkeypatch.delattr(os, "memfd_create")
    assert shared(1, 1) is None


@pytest.fixture(scope="module")
def workers():
    return Workers(2, 50 * ROW)


@given(st.lists(st.integers(0, 100), max_size=12), st.integers(0, 12))
@settings(deadline=None, max_examples=30)
def test_order_and_slots_survive_large_results_and_early_ends(workers, lengths, taken):
    results = workers.map(squares, batches(lengths))
    for number, (length, (found, name)) in enumerate(zip(lengths, results, strict=False)):
        np.testing.assert_array_equal(found, np.arange(length) ** 2)
        assert name == str(number)
        if number == taken:
            break
    results.close()
    assert len([found for found, _ in workers.map(squares, batches([1] * 20))]) == 20


def test_readers_at_the_same_time_do_without_slots(workers):
    running = [workers.map(squares, batches(range(20))) for _ in range(3)]
    for number, round_ in enumerate(zip(*running, strict=True)):
        for found, _ in round_:
            np.testing.assert_array_equal(found, np.arange(number) ** 2)
    free = [workers._slots.take() for _ in range(2 * BATCHES_AHEAD + 2)]
    assert None not in free[:-1]
    assert free[-1] is None
    for slot in free:
        workers._slots.give_back(slot)


def test_errors_come_back_and_so_do_their_slots(workers):
    for _ in range(3 * BATCHES_AHEAD):
        with pytest.raises(IndexError):
            list(workers.map(squares, [[]]))
    assert [name for _, name in workers.map(squares, batches([3] * 9))] == [str(number) for number in range(9)]
