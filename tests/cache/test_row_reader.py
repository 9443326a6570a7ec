"""Random rows of stores with more chunks than a process may have open files, and errors that say nothing about the data."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import Store
from rarkit.errors import DatasetError, IncompleteError, StoreError, WeightsError
from rarkit.files import npz
from rarkit.files.system_errors import cure_of, system_error
from rarkit.files.weights import read_tensors

CHUNKS = 300
ROWS = np.arange(CHUNKS * 2 * 3, dtype=np.uint16).reshape(CHUNKS * 2, 3)


@contextmanager
def room_for_files(count):
    """Within, this process can open ``count`` more files."""
    before, taken = resource.getrlimit(resource.RLIMIT_NOFILE), []
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, before[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken:
            os.close(descriptor)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with an output of many chunks."""
    address = str(tmp_path_factory.mktemp("many"))
    output = Store(address).output("tokenize", "f00d")
    with output.writing({}):
        output.write_array("tokens", ROWS, rows=2)
        output.write_file("note.json", b"{}")
        output.finish(["note.json"])
    return address


def test_a_store_of_many_chunks_is_read_with_few_open_files(place):
    output = Store(place).output("tokenize", "f00d")
    before = len(os.listdir("/proc/self/fd"))
    with room_for_files(16):
        reader = RowReader(output, "tokens")
        indices = np.random.default_rng(0).integers(0, len(ROWS), 400)
        np.testing.assert_array_equal(reader.rows(indices), ROWS[indices])
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "maps hold descriptors"


@pytest.mark.parametrize(
    "ask",
    [
        lambda output: output.record(),
        lambda output: output.defect(),
        lambda output: output.require_complete(),
        lambda output: output.read_array("tokens"),
        lambda output: output.read_file("note.json"),
        lambda output: output.verify(),
        lambda output: RowReader(output, "tokens"),
    ],
    ids=["record", "defect", "require_complete", "read_array", "read_file", "verify", "rows"],
)
def test_too_many_open_files_are_no_damage(place, ask):
    output = Store(place).output("tokenize", "f00d")
    ask(output)
    output.refresh()
    with room_for_files(0), pytest.raises(StoreError, match=r"Too many open files.*ulimit -n") as refusal:
        ask(output)
    assert not isinstance(refusal.value, IncompleteError)
    assert "--force" not in str(refusal.value)


def test_too_many_open_files_are_no_damage_of_weights_and_arrays(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.bin")
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with npz.opened(str(tmp_path / "a.npz")) as archive:
        npz.read_array(archive, "a", "a.npz")
    read_tensors(tmp_path / "a.bin")
    with room_for_files(0), pytest.raises(WeightsError, match=r"Too many open files.*ulimit") as refusal:
        read_tensors(tmp_path / "a.bin")
    assert "damaged" not in str(refusal.value)
    with room_for_files(0), pytest.raises(DatasetError, match=r"Too many open files.*ulimit"), npz.opened(str(tmp_path / "a.npz")):
        pass


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EIO, "Input/output error"), errno.EIO),
        (PermissionError(errno.EACCES, "Permission denied"), errno.EACCES),
        (RuntimeError("unable to mmap 5 bytes from file </a>: Cannot allocate memory (12)"), errno.ENOMEM),
        (OSError("image file is truncated (5 bytes not processed)"), None),
        (RuntimeError("Expected 3 tensors, got 4 (4)"), None),
        (ValueError("x"), None),
    ],
)
def test_errors_of_the_system_are_told_from_errors_about_data(error, number):
    told = system_error(error)
    assert (told.errno if told is not None else None) == number
    if number is not None:
        assert cure_of(told, "default") != "default"
    assert cure_of(ValueError(), "default") == "default"


def test_no_memory_says_nothing_about_data():
    assert isinstance(system_error(MemoryError()), MemoryError)
    assert isinstance(system_error(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")), MemoryError)


def test_a_truncated_chunk_is_damage(tmp_path):
    output = Store(str(tmp_path)).output("tokenize", "f00d")
    with output.writing({}):
        output.write_array("tokens", ROWS[:6], rows=2)
        output.finish()
    output.require_complete()
    chunk = Path(output.chunk_path("tokens", 1))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(IncompleteError, match="--force tokenize"):
        RowReader(output, "tokens")


def test_a_rank_reads_the_rows_it_is_given_and_no_chunk_besides(place, monkeypatch):
    """What a rank needs of a step's rows is its own part of them: no data position is kept, and no other row is touched."""
    output = Store(place).output("tokenize", "f00d")
    checked = []
    plain = type(output.digests).check
    monkeypatch.setattr(type(output.digests), "check", lambda self, key, data: (checked.append(key), plain(self, key, data)))
    rows_B = np.random.default_rng(1).integers(0, len(ROWS), 32)
    whole = RowReader(output, "tokens").rows(rows_B)
    touched = []
    for rank in range(4):
        output.refresh()
        checked.clear()
        own = rows_B[8 * rank : 8 * rank + 8]
        reader = RowReader(output, "tokens")
        np.testing.assert_array_equal(reader.rows(own), whole[8 * rank : 8 * rank + 8])
        assert set(checked) == {f"tokens/c/{row // 2}/0" for row in own}
        touched += checked
    assert len(set(touched)) < CHUNKS / 4
