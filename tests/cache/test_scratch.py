"""Chunks of stores elsewhere: copied once for each machine, checked on the way, in the room that there is, and gone afterwards."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rarkit.cache import scratch
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError, RankError, StoreError
from rarkit.runtime.ranks import Ranks
from tests.cache.reading import reading_rows
from tests.damages import without_seal
from tests.processes import call_ranks
from tests.rank_threads import threads

BLOCKS = 12
ROWS = np.arange(2 * 2 * BLOCKS, dtype=np.uint16).reshape(2 * BLOCKS, 2)


def written(address):
    output = Store(address).output("tokenize", "f00d")
    with output.writing({}):
        output.write_array("tokens", ROWS, rows=2)
        output.finish()
    return Store(address).output("tokenize", "f00d")


@pytest.fixture
def output():
    return written(f"memory://scratch-{time.monotonic_ns()}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RARKIT_SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


class Shown:
    """A reporter that keeps what it is to show, and looks at the folder of copies meanwhile."""

    def __init__(self, folder):
        self.folder, self.asked, self.steps, self.modes = folder, [], 0, set()

    @contextmanager
    def task(self, *asked):
        self.asked.append(asked)

        def advance(n=1):
            self.steps += n
            [copies] = self.folder.iterdir()
            for path in (copies, *copies.iterdir()):
                # Another thread may have given it its final name meanwhile.
                with suppress(FileNotFoundError):
                    self.modes.add(stat.S_IMODE(path.stat().st_mode))

        yield advance


def test_copies_are_private_and_gone_once_they_are_mapped(output, folder):
    shown = Shown(folder)
    reader = RowReader(output, "tokens", reporter=shown)
    assert (shown.asked, shown.steps) == ([("fetching tokens", BLOCKS, "chunks")], BLOCKS)
    assert shown.modes == {0o700, 0o600}
    assert list(folder.iterdir()) == []
    np.testing.assert_array_equal(reader.rows([23, 0, 7]), ROWS[[23, 0, 7]])


def test_a_local_store_is_mapped_where_it_is(tmp_path, folder):
    shown = Shown(folder)
    RowReader(written(str(tmp_path / "store")), "tokens", reporter=shown)
    assert shown.asked == []


def test_what_is_not_what_was_written_is_refused_while_it_is_fetched(output, folder):
    path = output.chunk_path("tokens", 7)
    data = bytearray(output.filesystem.cat_file(path))
    data[1] ^= 1
    output.filesystem.pipe_file(path, bytes(data))
    with pytest.raises(IncompleteError, match=r"'tokens' .* not what was written.*--force tokenize"):
        RowReader(output, "tokens")
    assert list(folder.iterdir()) == []


def test_chunks_of_an_older_rarkit_are_checked_when_they_are_touched(tmp_path, folder, monkeypatch):
    local = written(str(tmp_path / "store"))
    without_seal(Path(local.path))
    path = Path(local.chunk_path("tokens", 7))
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)
    output = Store(str(tmp_path / "store")).output("tokenize", "f00d")
    monkeypatch.setattr(type(output), "is_local", False)
    reader = RowReader(output, "tokens")
    monkeypatch.undo()
    np.testing.assert_array_equal(reader.rows([0, 23]), ROWS[[0, 23]])
    with pytest.raises(IncompleteError, match="not what was written"):
        reader.rows([14])


def test_too_little_room_is_told_before_anything_is_fetched(output, folder, monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    monkeypatch.setattr(scratch, "_copy", lambda *_: pytest.fail("fetched"))
    cure = r"takes 0\.0 MB, and .*scratch has 0\.0 MB left\. Name a folder with room for it in RARKIT_SCRATCH \(or TMPDIR\)\."
    with pytest.raises(StoreError, match=cure):
        RowReader(output, "tokens")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_is_told(number, output, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(scratch, "write_bytes", full)
    with pytest.raises(StoreError, match=r"is full\. Name a folder with room for it in RARKIT_SCRATCH") as refusal:
        RowReader(output, "tokens")
    assert not isinstance(refusal.value, IncompleteError)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(output, monkeypatch, tmp_path):
    monkeypatch.setenv("RARKIT_SCRATCH", str(tmp_path / "gone"))
    with pytest.raises(StoreError, match=r"there is no .*gone.*RARKIT_SCRATCH"):
        RowReader(output, "tokens")


def test_ranks_of_a_machine_fetch_from_s3_once(s3_bucket, s3_requests, folder, tmp_path):
    address = f"s3://{s3_bucket}/scratch-{time.monotonic_ns()}"
    written(address)
    variables = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RARKIT_SCRATCH"))}
    with s3_requests() as requests:
        done = call_ranks(2, tmp_path, reading_rows, address, len(ROWS), variables)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", *(f"rank {rank} of 2 has read 12 rows" for rank in range(2))]
    chunks = [operation for operation in requests.operations if "/tokens/c/" in operation]
    assert len(chunks) == len(set(chunks)) == BLOCKS
    assert list(folder.iterdir()) == []


def test_ranks_of_a_machine_hear_of_failures_on_all(monkeypatch):
    for name, value in {"GROUP_RANK": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)

    def work(ranks):
        # As if each had a machine to itself with another process, which never comes.
        if ranks.rank == 1:
            raise ranks.failing(StoreError("the disk is full"))
        assert (ranks.node.rank, ranks.node.size, ranks.node is ranks.node) == (0, 2, True)
        return ranks.node.meet()

    first, second = threads(2, work)
    assert isinstance(first, RankError)
    assert "the disk is full" in str(first)
    assert isinstance(second, RankError)


def test_where_the_launcher_does_not_say_which_machine_each_rank_is_by_itself(monkeypatch):
    from torch.distributed import HashStore

    monkeypatch.delenv("GROUP_RANK", raising=False)
    assert Ranks(1, 4, HashStore()).node.size == 1
