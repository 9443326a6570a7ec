"""How often the store is asked: on S3, each question is an HTTP request."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rarkit.cache.content_digest import digest
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import Store

BLOCKS = 20
ROWS = np.arange(2 * BLOCKS * 7, dtype=np.uint16).reshape(2 * BLOCKS, 7)


@pytest.fixture
def store(s3_bucket):
    return Store(f"s3://{s3_bucket}/requests-{time.monotonic_ns()}")


def written(store, fingerprint="f00d"):
    """Finishes an output with a StageOutput of its own, so that none in the tests knows anything of it."""
    output = store.output("tokenize", fingerprint)
    with output.writing({}):
        output.write_array("tokens", ROWS, rows=2)
        output.write_file("note.json", b"{}")
        output.finish(["note.json"])


def test_a_finished_output_is_read_with_one_request_for_each_thing_in_it(store, s3_requests):
    written(store)
    output = store.output("tokenize", "f00d")
    with s3_requests() as requests:
        output.record()
        output.exists()
        output.defect()
        output.require_complete()
        assert output.layout("tokens").blocks == BLOCKS
        output.bytes_used()
        output.file_names()
        assert output.missing_blocks(["tokens"]) == []
    assert [operation.split()[0] for operation in requests.operations] == ["GET", "LIST"]
    with s3_requests() as requests:
        np.testing.assert_array_equal(output.read_array("tokens", 0, 2), ROWS[:2])
    assert [operation.partition("/tokens/")[2] for operation in requests.operations] == ["zarr.json", "c/0/0"]
    with s3_requests() as requests:
        for block in range(BLOCKS):
            start, stop = output.block_rows("tokens", block)
            np.testing.assert_array_equal(output.read_array("tokens", start, stop), ROWS[start:stop])
    assert requests.count == BLOCKS
    with s3_requests() as requests:
        assert output.read_file("note.json") == b"{}"
    # s3fs asks for the size of files, which may be large enough to be read in parallel.
    assert requests.count <= 2
    with s3_requests() as requests:
        digest(output)
        RowReader(output, "tokens")
    assert requests.count == 2 * BLOCKS


def test_an_output_that_is_not_there_costs_one_request(store, s3_requests):
    output = store.output("tokenize", "f00d")
    with s3_requests() as requests:
        assert output.record() is None
        assert not output.exists()
        assert output.defect() == "it was never finished"
    assert requests.count == 1


def test_a_new_array_is_written_without_a_look_at_what_is_there(store, s3_requests):
    output = store.output("tokenize", "f00d")
    with output.writing({}), s3_requests() as requests:
        output.write_array("tokens", ROWS, rows=2)
    # Metadata, record and blocks; then the lock goes.
    assert [operation.split()[0] for operation in requests.operations][: 2 + BLOCKS] == ["PUT"] * (2 + BLOCKS)


def test_a_block_is_written_with_one_request(store, s3_requests):
    output = store.output("tokenize", "f00d")
    with output.writing({}):
        output.create("tokens", ROWS.shape, ROWS.dtype, 2)
        with s3_requests() as requests:
            assert output.missing_blocks(["tokens"]) == list(range(BLOCKS))
            for block in range(BLOCKS):
                start, stop = output.block_rows("tokens", block)
                output.write_block(block, tokens=ROWS[start:stop])
        assert requests.count == 1 + BLOCKS
        with s3_requests() as requests:
            assert output.missing_blocks(["tokens"]) == []
            assert output.missing_blocks(["tokens"]) == []
            assert output.record().arrays.keys() == {"tokens"}
        assert requests.count == 1


def test_a_rank_goes_on_with_what_the_first_declared(store, s3_requests):
    first, second = store.output("tokenize", "f00d"), store.output("tokenize", "f00d")
    assert not second.exists()
    with first.writing({}):
        first.create("tokens", ROWS.shape, ROWS.dtype, 2)
        with s3_requests() as requests:
            second.refresh()
            for block in range(BLOCKS):
                second.write_block(block, tokens=ROWS[2 * block : 2 * block + 2])
        # The record, the array's zarr.json, and the blocks.
        assert requests.count == 2 + BLOCKS
        first.vouch(second.written())
        with s3_requests() as requests:
            first.finish()
        # The lock, which may be another's meanwhile; the listing; the record.
        assert [operation.split()[0] for operation in requests.operations] == ["LIST", "GET", "PUT"]


def test_outputs_come_with_their_records(store, s3_requests):
    for fingerprint in ("a", "b", "c"):
        written(store, fingerprint)
    with s3_requests() as requests:
        assert all(output.record().complete for output in store.outputs("tokenize"))
    assert [operation.split()[0] for operation in requests.operations] == ["LIST", "GET", "GET", "GET"]
    with s3_requests() as requests:
        assert len(list(store.outputs())) == 3
    assert requests.count == 5
