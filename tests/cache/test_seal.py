"""Whatever changes in a finished output, metadata included, is seen: by ``verify``, and by whoever reads it."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.cache.fingerprint import fingerprint
from rarkit.cache.record import NO_RECORD, Record, StoredArray
from rarkit.cache.row_reader import RowReader
from rarkit.cache.seal import NewerRecord, opened, sealed
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError, StoreError
from tests.damages import without_seal

ROWS = np.arange(70, dtype=np.uint16).reshape(10, 7)
IDENTITY = {"seed": 3, "rate": 1e-05, "title": "0" * 64, "names": ["é", "\x1b"]}


def made(store, stage="tokenize", seed=3, rows=ROWS):
    identity = IDENTITY | {"seed": seed}
    output = store.output(stage, fingerprint(stage, identity, {}))
    with output.writing({"identity": identity}):
        output.write_array("tokens", rows, rows=3)
        output.write_array("labels", np.zeros((0, 2), np.float32))
        output.write_file("note.json", b"{}")
        output.finish(["note.json"])
    output.refresh()
    return output


@pytest.fixture
def output(tmp_path):
    return made(Store(str(tmp_path / "store")))


def older(output):
    """Makes it an output of an older rarkit; returns the metadata of the group."""
    metadata = without_seal(Path(output.path))
    output.refresh()
    return metadata


def refused(zarr_json):
    """Why; None if it is not."""
    try:
        opened(zarr_json)
    except ValueError as error:
        return str(error)[:201]
    return None


def test_every_flipped_bit_of_the_record_is_seen(output):
    whole = Path(output.path, "zarr.json").read_bytes()
    assert isinstance(opened(whole), Record)
    unseen = []
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        if refused(bytes(changed)) is None:
            unseen.append(place)
    assert unseen == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zarr.json", b""),
        ("zarr.json", None),
        ("tokens/zarr.json", None),
        ("labels/zarr.json", b"{}"),
        ("tokens/zarr.json", b"["),
        ("tokens/zarr.json", b" " * 2**21),
    ],
)
def test_metadata_that_is_gone_or_something_else_is_seen(output, name, content):
    path = Path(output.path, name)
    path.unlink() if content is None else path.write_bytes(content)
    assert output.verify() is not None
    if name != "zarr.json":
        with pytest.raises(IncompleteError, match="--force tokenize"):
            output.read_array(name.split("/")[0])


def test_a_pipe_in_the_place_of_a_record_is_damage(output):
    Path(output.path, "zarr.json").unlink()
    os.mkfifo(Path(output.path, "zarr.json"))
    output.refresh()
    assert "is a named pipe" in output.defect()
    Path(output.path, "zarr.json").unlink()
    Path(output.path, "zarr.json").mkdir()
    output.refresh()
    assert "is a folder" in output.defect()
    Path(output.path, "files/note.json").unlink()
    os.mkfifo(Path(output.path, "files/note.json"))
    with pytest.raises(StoreError, match="is a named pipe"):
        output._folder.read_file("note.json")


def test_an_output_that_lost_its_record_is_listed_and_made_anew(output, tmp_path):
    Path(output.path, "zarr.json").unlink()
    [listed] = Store(str(tmp_path / "store")).outputs()
    assert listed.verify() == NO_RECORD
    (tmp_path / "store/other/folder").mkdir(parents=True)
    (tmp_path / "store/other/folder/mine").write_text("of no output")
    assert len(list(Store(str(tmp_path / "store")).outputs())) == 1
    assert made(Store(str(tmp_path / "store"))).verify() is None


@pytest.mark.parametrize("sealed_in_part", [False, True])
def test_another_byte_order_is_seen(output, sealed_in_part):
    if sealed_in_part:
        older(output)
    path = Path(output.path, "tokens/zarr.json")
    path.write_text(path.read_text().replace('"little"', '"big"'))
    assert "tokens" in output.verify()
    with pytest.raises(IncompleteError, match="array 'tokens' or its checksum is not what was written"):
        output.read_array("tokens")


def test_chunks_in_each_other_s_place_are_seen_where_they_are_read(output):
    first, second = (Path(output.chunk_path("tokens", block)) for block in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    assert output.defect() is None
    np.testing.assert_array_equal(output.read_array("tokens", 6, 10), ROWS[6:])
    reader = RowReader(output, "tokens")
    np.testing.assert_array_equal(reader.rows([9, 6]), ROWS[[9, 6]])
    for ask in (lambda: output.read_array("tokens", 0, 3), lambda: reader.rows([9, 0]), lambda: reader.rows([0])):
        with pytest.raises(IncompleteError, match=r"'tokens' .* is not what was written.* --force tokenize"):
            ask()
    assert output.verify().startswith("chunk 0 of array 'tokens'")


def test_a_mapped_chunk_is_read_once(output, monkeypatch):
    checked = []
    plain = type(output.digests).check
    monkeypatch.setattr(type(output.digests), "check", lambda self, key, data: (checked.append(key), plain(self, key, data)))
    for _ in range(2):
        reader = RowReader(output, "tokens")
        for rows in ([0, 9], [9, 1], [3]):
            np.testing.assert_array_equal(reader.rows(rows), ROWS[rows])
    assert sorted(checked) == ["tokens/c/0/0", "tokens/c/1/0", "tokens/c/3/0"]


def test_an_output_in_the_place_of_another_is_seen(tmp_path):
    store = Store(str(tmp_path))
    one, other = made(store), made(store, seed=4)
    Path(other.path, "zarr.json").write_bytes(Path(one.path, "zarr.json").read_bytes())
    other.refresh()
    assert other.defect() == f"it is the output tokenize/{one.fingerprint}, in the place of this one"
    with pytest.raises(IncompleteError, match="in the place of this one"), other.writing({}):
        pass
    # Under a name that is no fingerprint, anything may lie: tokens that were imported.
    Path(one.path).rename(tmp_path / "mine")
    moved = Store(str(tmp_path)).output("tokenize", "../mine")
    assert moved.verify() is None
    with pytest.raises(StoreError, match="Choose another place"), store.output("tokenize", "0" * 20).writing({}):
        pass


def test_what_an_interruption_left_damaged_is_made_anew(tmp_path):
    expected = made(Store(str(tmp_path / "undisturbed"))).record()
    store = Store(str(tmp_path / "store"))
    output = store.output("tokenize", fingerprint("tokenize", IDENTITY, {}))
    with output.writing({"identity": IDENTITY}):
        output.create("tokens", ROWS.shape, ROWS.dtype, 3)
        for block in range(3):
            output.write_block(block, tokens=ROWS[3 * block : 3 * block + 3])
    chunk = Path(output.chunk_path("tokens", 1))
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    Path(output.path, "tokens/zarr.json").write_text("{")
    again = store.output("tokenize", output.fingerprint)
    assert again.missing_blocks(["tokens"]) == [3], "a plan reads no chunks"
    with again.writing({"identity": IDENTITY}):
        again.create("tokens", ROWS.shape, ROWS.dtype, 3)
        assert again.missing_blocks(["tokens"]) == [1, 3]
    assert made(store).record().arrays == expected.arrays
    assert made(store).verify() is None


def test_what_an_older_rarkit_sealed_is_read(output):
    older(output)
    assert not output.record().is_sealed
    assert output.verify() is None
    np.testing.assert_array_equal(RowReader(output, "tokens").rows([9, 0]), ROWS[[9, 0]])
    chunk = Path(output.chunk_path("tokens", 0))
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    with pytest.raises(IncompleteError, match="is not what was written"):
        RowReader(output, "tokens").rows([0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "two"),
        ("arrays", {"tokens": {"shape": [10**15], "dtype": "uint8", "rows": 1}}),
        ("arrays", {"tokens": {"shape": [10], "dtype": "object", "rows": 1}}),
        ("arrays", {"tokens": {"shape": [10], "dtype": "uint8", "rows": 0}}),
        ("arrays", {"../tokens": {"shape": [10], "dtype": "uint8", "rows": 1}}),
        ("files", {"../../receipt.json": 3}),
        ("files", {"note.json": -1}),
        ("finished", 1e300),
        ("finished", None),
        ("overrides", "--set"),
    ],
)
def test_records_have_bounds(output, field, value):
    metadata = older(output)
    metadata["attributes"]["rarkit"][field] = value
    with pytest.raises(ValueError, match=r".") as refusal:
        opened(json.dumps(metadata).encode())
    assert len(str(refusal.value)) <= 200


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value, path=()):
    """The paths of all values in JSON data."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@given(st.data())
@settings(max_examples=200)
def test_a_record_that_is_nonsense_is_refused_as_such(data):
    whole = json.loads(sealed(EXAMPLE))
    del whole["attributes"]["rarkit_seal"]
    changed = copy.deepcopy(whole)
    *path, last = data.draw(st.sampled_from(list(places(whole))[1:]))
    table = changed
    for key in path:
        table = table[key]
    table[last] = data.draw(NONSENSE)
    zarr_json = json.dumps(changed).encode()
    reason = refused(zarr_json)
    assert reason is None or 0 < len(reason) <= 200
    record = opened(zarr_json) if reason is None else None
    assert record is None or isinstance(record, Record | NewerRecord)
    if isinstance(record, Record):
        record.misnamed("0" * 20), record.defect({}), record.as_json()


EXAMPLE = Record(
    format=2,
    complete=True,
    stage="train",
    identity={"a": 1, "b": {"c": [1.5, None]}},
    upstream={"tokenize": "0" * 20},
    overrides=("--set=a=1",),
    started=1.0,
    finished=2.0,
    arrays={"log_loss": StoredArray(shape=(6, 2), dtype="float64", rows=6)},
    files={"model.safetensors": 3},
    sha256={"model.safetensors": "0" * 64},
    grid=(4, 4),
    sets=("real",),
    parameters=5,
)


def test_deep_and_huge_records_are_refused():
    for data in (
        b"[" * 10**6,
        b'{"attributes":' * 5000,
        b"",
        b"\xff",
        b'{"attributes": {"rarkit": {"format": 1' + b"0" * 5000 + b"}}}",
    ):
        with pytest.raises(ValueError, match=r"."):
            opened(data)


@given(st.recursive(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), lambda inner: st.lists(inner)))
def test_a_record_names_the_fingerprint_that_it_was_made_under(value):
    identity = {"value": value}
    record = opened(sealed(Record.begun("train", {"identity": identity})))
    assert record.misnamed(fingerprint("train", identity, {})) is None
    assert record.misnamed(fingerprint("train", {"value": [value]}, {})) is not None
