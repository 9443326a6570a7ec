"""A store of a stranger's may name any codec, and vouch for it: what rarkit does not write is refused before zarr decodes it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rarkit.cache.record import StoredArray
from rarkit.cache.seal import sealed
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError
from tests.limits import refusal

ROWS = np.arange(70, dtype=np.uint16).reshape(10, 7)


@pytest.fixture
def output(tmp_path):
    output = Store(str(tmp_path / "store")).output("tokenize", "a" * 64)
    with output.writing({}):
        output.write_array("tokens", ROWS, rows=3)
        output.finish()
    output.refresh()
    return output


def vouched_for(output, name: str) -> None:
    """Writes a record that vouches for the array's metadata as it is now, sealed as rarkit seals it."""
    record = output.require_complete()
    array = record.arrays[name]
    digest = hashlib.sha256(Path(output.path, name, "zarr.json").read_bytes()).hexdigest()
    record = record.changed(arrays={name: StoredArray.of(array.layout, digest, array.chunks)})
    Path(output.path, "zarr.json").write_bytes(sealed(record))
    output.refresh()


def test_metadata_that_is_vouched_for_is_compared_with_the_layout_too(output):
    path = Path(output.path, "tokens/zarr.json")
    whole = path.read_text()
    changes = {
        '"crc32c"': '"gzip","configuration":{"level":5}',
        '"little"': '"big"',
        '"chunk_shape": [\n        3,': '"chunk_shape": [\n        1000000,',
        '"uint16"': '"uint64"',
    }
    for before, after in changes.items():
        changed = whole.replace(before, after)
        assert changed != whole, (before, whole)
        path.write_text(changed)
        vouched_for(output, "tokens")
        with pytest.raises(IncompleteError, match="array 'tokens'"):
            output.read_array("tokens")
        assert "tokens" in (output.verify() or "")
    path.write_text(whole)
    vouched_for(output, "tokens")
    np.testing.assert_array_equal(output.read_array("tokens"), ROWS)


def test_arrays_that_the_record_does_not_list_are_not_read(output):
    shutil.copytree(Path(output.path, "tokens"), Path(output.path, "more"))
    output.refresh()
    with pytest.raises(IncompleteError, match="array 'more'"):
        output.read_array("more")


def test_metadata_is_a_file_of_some_size(output):
    path = Path(output.path, "tokens/zarr.json")
    whole = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    assert "tokens" in refusal(lambda: output.read_array("tokens"))
    path.unlink()
    with path.open("wb") as file:
        file.write(whole)
        file.truncate(30 << 30)
    assert "tokens" in refusal(lambda: output.read_array("tokens"))
