"""Stage outputs: whole or refused, resumable by block, one writer at a time, on every kind of store."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.cache.fingerprint import differences, fingerprint
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError, StoreError


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "disk":
        return Store(str(tmp_path / "store"))
    if request.param == "memory":
        return Store(f"memory://store-{os.getpid()}-{time.monotonic_ns()}")
    return Store(f"s3://{request.getfixturevalue('s3_bucket')}/store-{time.monotonic_ns()}")


ROWS = np.arange(70, dtype=np.uint16).reshape(10, 7)


def written(store, finish=True):
    output = store.output("tokenize", "f00d")
    with output.writing({"identity": {}}):
        output.create("tokens", ROWS.shape, ROWS.dtype, 3)
        for block in output.missing_blocks(["tokens"]):
            start, stop = output.block_rows("tokens", block)
            output.write_block(block, tokens=ROWS[start:stop])
        output.write_file("note.json", b"{}")
        if finish:
            output.finish(["note.json"], device="red")
    return output


def chunk(output, block):
    return output.chunk_path("tokens", block)


def test_a_whole_output_reads_back(store):
    output = written(store)
    assert output.defect() is None
    assert output.verify() is None
    assert output.require_complete().device == "red"
    np.testing.assert_array_equal(output.read_array("tokens"), ROWS)
    np.testing.assert_array_equal(output.read_array("tokens", 2, 5), ROWS[2:5])
    assert output.read_file("note.json") == b"{}"
    assert [listed.fingerprint for listed in store.outputs()] == ["f00d"]
    assert [listed.fingerprint for listed in store.outputs("tokenize")] == ["f00d"]
    assert list(store.outputs("train")) == []


def test_the_record_tells_how_long_the_run_that_finished_it_worked(tmp_path):
    """However long an interrupted output lies before a run resumes it."""
    output = written(Store(str(tmp_path / "store")), finish=False)
    assert output.record().seconds is None
    output._folder.write_record(output.record().changed(started=round(time.time() - 3e5, 3)))
    began = time.monotonic()
    finished = written(Store(str(tmp_path / "store"))).record()
    assert 0 <= finished.seconds <= time.monotonic() - began + 0.001
    assert finished.finished - finished.started > 2e5


def test_random_rows_are_the_rows(store):
    reader = RowReader(written(store), "tokens")
    indices = [9, 0, 3, 3, 8, 2]
    np.testing.assert_array_equal(reader.rows(indices), ROWS[indices])
    assert reader.rows([]).shape == (0, 7)
    with pytest.raises(IndexError):
        reader.rows([10])


def test_what_is_not_finished_is_refused(store):
    output = written(store, finish=False)
    assert output.defect() == "it was never finished"
    with pytest.raises(IncompleteError, match=r"is not finished: .* Start it again"):
        output.require_complete()


def test_a_missing_chunk_is_seen(store):
    output = written(store)
    output.filesystem.rm_file(chunk(output, 1))
    assert output.defect() == "chunk 1 of array 'tokens' is missing"
    with pytest.raises(IncompleteError, match="--force tokenize"):
        RowReader(output, "tokens")


def test_what_goes_missing_after_a_look_is_not_read_as_zeros(store):
    output = written(store)
    output.require_complete()
    output.filesystem.rm_file(chunk(output, 1))
    output.filesystem.rm_file(f"{output.path}/files/note.json")
    np.testing.assert_array_equal(output.read_array("tokens", 0, 3), ROWS[:3])
    with pytest.raises(IncompleteError, match="array 'tokens' or one of its chunks is missing"):
        output.read_array("tokens")
    with pytest.raises(IncompleteError, match=r"file 'note\.json' is missing"):
        output.read_file("note.json")
    with pytest.raises(IncompleteError, match="--force tokenize"):
        RowReader(output, "tokens")
    with pytest.raises(IncompleteError, match="array 'others' or one of its chunks is missing"):
        output.read_array("others")


def test_a_truncated_chunk_and_file_are_seen(store):
    output = written(store)
    whole = output.filesystem.cat_file(chunk(output, 2))
    output.filesystem.pipe_file(chunk(output, 2), whole[:-1])
    assert "chunk 2 of array 'tokens' has" in output.defect()
    output.filesystem.pipe_file(chunk(output, 2), whole)
    output.filesystem.pipe_file(f"{output.path}/files/note.json", b"")
    output.refresh()
    assert "file 'note.json'" in output.defect()


def test_a_flipped_bit_is_seen_by_verify(store):
    output = written(store)
    data = bytearray(output.filesystem.cat_file(chunk(output, 0)))
    data[5] ^= 4
    output.filesystem.pipe_file(chunk(output, 0), bytes(data))
    assert output.defect() is None
    assert "chunk 0 of array 'tokens'" in output.verify()
    with pytest.raises(IncompleteError, match="checksum"):
        output.read_array("tokens")
    output.filesystem.rm_file(chunk(output, 1))
    assert output.verify() == "chunk 1 of array 'tokens' is missing"


def test_a_damaged_record_is_seen(store):
    output = written(store)
    output.filesystem.pipe_file(f"{output.path}/zarr.json", b'{"attr')
    output.refresh()
    assert output.exists()
    assert [damaged.fingerprint for damaged in store.outputs()] == ["f00d"]
    assert output.defect().startswith("its zarr.json is damaged (Invalid JSON")
    for asked in (output.record, output.require_complete, lambda: output.format):
        with pytest.raises(IncompleteError, match=r"zarr\.json is damaged \(Invalid JSON"):
            asked()


def test_what_another_process_wrote_is_seen_after_a_refresh(store):
    output, other = store.output("tokenize", "f00d"), store.output("tokenize", "f00d")
    assert other.record() is None
    assert not other.exists()
    with output.writing({}):
        output.create("tokens", ROWS.shape, ROWS.dtype, 3)
        assert other.record() is None
        other.refresh()
        # As ranks do: each writes whole chunks of what the first has declared.
        other.write_block(0, tokens=ROWS[:3])
        assert output.missing_blocks(["tokens"]) == [1, 2, 3]
        for block in (1, 2):
            output.write_block(block, tokens=ROWS[3 * block : 3 * block + 3])
        assert output.missing_blocks(["tokens"]) == [3]
        other.write_block(3, tokens=ROWS[9:])
        output.finish()
    assert not other.is_complete
    other.refresh()
    np.testing.assert_array_equal(other.read_array("tokens"), ROWS)
    with output.writing({"identity": {"new": 1}}, afresh=True):
        output.write_array("tokens", ROWS[:4].astype(np.int32), rows=2)
        output.finish()
    other.refresh()
    np.testing.assert_array_equal(other.read_array("tokens"), ROWS[:4])


def test_whoever_waited_for_the_lock_sees_what_was_done_meanwhile(store):
    waiting = store.output("tokenize", "f00d")
    assert waiting.record() is None
    written(store)
    with waiting.writing({"identity": {"other": 1}}):
        assert waiting.record().complete
        assert waiting.record().identity == {}


def test_the_record_in_hand_is_the_record_that_would_be_read(store):
    output = store.output("x", "y")
    with output.writing({"identity": {"grid": (4, 4)}}):
        output.write_array("values", np.zeros((5, 2), np.uint8), rows=2)
        output.finish(sets=["a", "b"])
    known = output.record()
    output.refresh()
    assert output.record() == known


def test_an_array_declared_anew_is_read_anew(store):
    output = store.output("x", "y")
    with output.writing({}):
        output.write_array("values", ROWS, rows=3)
        np.testing.assert_array_equal(output.read_array("values"), ROWS)
        output.write_array("values", ROWS[:5, :2].astype(np.int32), rows=2)
        np.testing.assert_array_equal(output.read_array("values"), ROWS[:5, :2])
        output.finish()
    assert output.verify() is None


def test_the_lock_takes_no_room_once_it_is_gone(store):
    output = store.output("x", "y")
    with output.writing({}):
        output.finish()
        locked = output.bytes_used()
    assert 0 < output.bytes_used() < locked


def test_resuming_writes_only_what_is_missing(store):
    output = written(store, finish=False)
    output.filesystem.rm_file(chunk(output, 1))
    kept = output.filesystem.cat_file(chunk(output, 0))
    again = store.output("tokenize", "f00d")
    with again.writing({"identity": {}}):
        again.create("tokens", ROWS.shape, ROWS.dtype, 3)
        assert again.missing_blocks(["tokens"]) == [1]
        with pytest.raises(IncompleteError, match="tokens not written in full"):
            again.finish()
        again.write_block(1, tokens=ROWS[3:6])
        again.finish()
    assert again.filesystem.cat_file(chunk(output, 0)) == kept
    np.testing.assert_array_equal(again.read_array("tokens"), ROWS)


def test_blocks_of_zeros_are_written_too(store):
    zeros = np.zeros((5, 2), np.uint8)
    output = store.output("sample", "00")
    with output.writing({}):
        output.create("zeros", zeros.shape, zeros.dtype, rows=2)
        output.write_block(0, zeros=zeros[:2])
    again = store.output("sample", "00")
    with again.writing({}):
        again.write_array("zeros", zeros, rows=2)
        again.finish()
    assert again.defect() is None


def test_removing_and_writing_afresh(store):
    output = written(store)
    with output.writing({"identity": {"new": 1}}, afresh=True):
        assert output.record().arrays == {}
        assert output.file_names() == []
    output.remove()
    assert not output.exists()
    assert list(store.outputs()) == []


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(str(tmp_path / "file" / "store")).check_writable()
    with pytest.raises(StoreError, match="nonsense"):
        Store("nonsense://x")


def test_checking_a_store_leaves_nothing_behind(tmp_path):
    Store(str(tmp_path / "new")).check_writable()
    assert not (tmp_path / "new").exists()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 50), st.data())
def test_any_layout_round_trips(count, width, rows, data):
    store = Store(f"memory://any-{time.monotonic_ns()}")
    values = np.arange(count * width, dtype=np.int32).reshape(count, width)
    output = store.output("x", "y")
    with output.writing({}):
        output.write_array("values", values, rows=rows)
        output.finish()
    np.testing.assert_array_equal(output.read_array("values"), values)
    indices = data.draw(st.lists(st.integers(0, count - 1), max_size=20))
    np.testing.assert_array_equal(RowReader(output, "values").rows(indices), values[np.array(indices, dtype=int)])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4), st.dictionaries(st.text(max_size=4), json_values, max_size=4))
def test_fingerprints_tell_identities_apart(one, two):
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (fingerprint("s", one, {}) == fingerprint("s", two, {})) == same
    assert fingerprint("s", one, {}) != fingerprint("t", one, {})
    assert fingerprint("s", one, {}) != fingerprint("s", one, {"up": "1"})
    assert differences(one, one) == []


def test_differences_name_the_leaves():
    old = {"train": {"steps": 10, "betas": [0.9, 0.96]}, "seed": 1, "gone": 2}
    new = {"train": {"steps": 20, "betas": [0.9, 0.96]}, "seed": 1}
    assert differences(old, new) == ["train.steps: 10 → 20", "gone: 2 → default"]


def test_of_hashes_the_first_digits_are_shown():
    content, upstream = {"content": "6b63aa67c4" + "0" * 54}, {"content": "ee25306392"}
    assert differences(content, upstream) == ["content: 6b63aa67c4 → ee25306392"]
