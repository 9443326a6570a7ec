"""Formats: what an older rarkit wrote is read, what a newer one wrote is refused by name, and both kinds of locks hold."""

from __future__ import annotations

import json
import os
import socket
import time

import numpy as np
import pytest

from rarkit.cache import holder as lock_holder
from rarkit.cache import record
from rarkit.cache.content_digest import digest
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError, LockedError, StoreError

ROWS = np.arange(70, dtype=np.uint16).reshape(10, 7)
NEWER = 99


@pytest.fixture
def output(tmp_path):
    """A finished output."""
    finished = Store(str(tmp_path)).output("tokenize", "f00d")
    with finished.writing({"identity": {}}):
        finished.write_array("tokens", ROWS, rows=3)
        finished.write_file("note.json", b"{}")
        finished.finish(["note.json"])
    return finished


def rewrite(output, **changes):
    """Changes the record as another version of rarkit might have written it: without seal and digests. None takes a key out."""
    path = f"{output.path}/zarr.json"
    metadata = json.loads(output.filesystem.cat_file(path))
    changed = metadata["attributes"]["rarkit"] | changes
    changed["arrays"] = {
        name: {key: value for key, value in array.items() if key not in ("sha256", "chunks")}
        for name, array in changed["arrays"].items()
    }
    metadata["attributes"] = {"rarkit": {key: value for key, value in changed.items() if value is not None}}
    output.filesystem.pipe_file(path, json.dumps(metadata).encode())
    output.refresh()


def test_a_record_has_its_format(output):
    assert output.format == output.record().format == record.FORMAT
    assert Store(output.path).output("tokenize", "nothing").format is None


def test_a_record_without_a_number_is_an_older_one_and_reads(output):
    with_number = digest(output)
    rewrite(output, format=None)
    assert output.format == 1
    assert output.defect() is None
    assert output.verify() is None
    np.testing.assert_array_equal(output.read_array("tokens"), ROWS)
    np.testing.assert_array_equal(RowReader(output, "tokens").rows([9, 0]), ROWS[[9, 0]])
    assert output.read_file("note.json") == b"{}"
    assert digest(output) == with_number


def test_what_an_older_rarkit_began_goes_on(output):
    rewrite(output, format=None, complete=False)
    output.filesystem.rm_file(output.chunk_path("tokens", 1))
    with output.writing({}):
        assert output.missing_blocks(["tokens"]) == [1]
        output.write_block(1, tokens=ROWS[3:6])
        output.finish(["note.json"])
    assert output.verify() is None


def test_a_newer_record_is_refused_and_kept(output, tmp_path):
    rewrite(output, format=NEWER)
    assert output.format == NEWER
    assert output.exists()
    for asked in (output.record, output.defect, output.require_complete, output.verify, lambda: output.read_file("note.json")):
        with pytest.raises(StoreError, match=f"written by a newer rarkit, in format {NEWER}.*Update rarkit") as refusal:
            asked()
        assert not isinstance(refusal.value, IncompleteError)
    with pytest.raises(StoreError, match="newer rarkit"), output.writing({}):
        pass
    assert [listed.format for listed in Store(str(tmp_path)).outputs()] == [NEWER]
    output.remove()
    assert not output.exists()


def test_a_format_that_is_no_number_is_damage(output):
    rewrite(output, format="two")
    with pytest.raises(IncompleteError, match=r"zarr\.json is damaged"):
        output.record()


def test_a_lock_has_its_format(tmp_path):
    output = Store(str(tmp_path)).output("train", "cafe")
    with output.writing({}):
        assert json.loads(output.filesystem.cat_file(f"{output.path}/lock.json"))["format"] == lock_holder.FORMAT


@pytest.mark.parametrize(
    ("holder", "message"),
    [
        ({"token": "x", "host": socket.gethostname(), "pid": os.getppid(), "heartbeat": time.time()}, "being written by process"),
        ({"format": NEWER, "token": "x", "host": "elsewhere", "pid": 1, "heartbeat": 0.0}, f"newer rarkit .* has format {NEWER}"),
        ({"format": NEWER, "owner": "told otherwise"}, r"delete that file"),
    ],
    ids=["older", "newer", "unknown"],
)
def test_a_lock_of_another_rarkit_holds(tmp_path, holder, message):
    output = Store(str(tmp_path)).output("train", "cafe")
    output.filesystem.makedirs(output.path)
    output.filesystem.pipe_file(f"{output.path}/lock.json", json.dumps(holder).encode())
    with pytest.raises(LockedError, match=message), output.writing({}):
        pass
    assert json.loads(output.filesystem.cat_file(f"{output.path}/lock.json")) == holder


def test_records_are_those_that_can_be_read(output, tmp_path):
    store = Store(str(tmp_path))
    for fingerprint in ("damaged", "newer"):
        other = store.output("tokenize", fingerprint)
        with other.writing({}):
            other.finish()
        if fingerprint == "newer":
            rewrite(other, format=NEWER)
        else:
            other.filesystem.pipe_file(f"{other.path}/zarr.json", b'{"attr')
    assert len(list(store.outputs("tokenize"))) == 3
    assert list(store.records("tokenize")) == [output.record()]
    assert list(store.records("train")) == []
