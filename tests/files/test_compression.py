"""Compressed files are read whole, unless they expand beyond what data do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import DatasetError, StoreError
from rarkit.files import archives
from rarkit.files.compression import expanded
from rarkit.files.locations import opened

ZEROS = bytes(2**20)


def _zipped(data):
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", data)
    return packed.getvalue()


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": _zipped}
CALLED = {"gz": "gzip"}


@given(data=st.binary(max_size=300_000), suffix=st.sampled_from(list(COMPRESS)), piece=st.integers(1, 2**18))
def test_what_was_compressed_comes_back(data, suffix, piece):
    with expanded(io.BytesIO(COMPRESS[suffix](data)), CALLED.get(suffix, suffix), "a", DatasetError) as file:
        assert b"".join(iter(lambda: file.read(piece), b"")) == data


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_expands_without_bounds_is_refused_on_the_way(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(COMPRESS[suffix](ZEROS * 20))
    # Less than that is read, whatever it expands to.
    with opened(str(path), compression="infer") as file:
        assert len(file.read()) == 20 * 2**20
    monkeypatch.setattr(archives, "LARGEST_UNSEEN", 2**20)
    with (
        pytest.raises(
            StoreError, match=rf"a\.{suffix} expands from [\d,]+ bytes to more than [\d,]+, which no data do.*Decompress it"
        ),
        opened(str(path), compression="infer", raising=StoreError) as file,
    ):
        for count in range(2**20, 20 * 2**20, 2**20):
            assert len(file.read(2**20)) == 2**20, count
    with pytest.raises(DatasetError, match="expands from"), opened(str(path), "rt", compression="infer") as file:
        file.read()


def test_data_may_be_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_UNSEEN", 2**10)
    tokens = np.random.default_rng(0).integers(0, 4, 2**20, np.uint8).tobytes()
    (tmp_path / "a.gz").write_bytes(gzip.compress(tokens))
    with opened(str(tmp_path / "a.gz"), compression="infer") as file:
        assert file.read() == tokens
