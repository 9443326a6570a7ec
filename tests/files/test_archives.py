"""Files in archives: what expands without bounds is refused before it is read."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from rarkit.errors import DatasetError
from rarkit.files import archives
from rarkit.files.locations import filesystem_of, opened
from rarkit.files.regular import open_on, read_on

ZEROS = bytes(2**20)


@pytest.fixture
def packed(tmp_path):
    """A zip with two files of zeros, both 1,000 times as small there."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/zeros", ZEROS * 65)
        archive.writestr("folder/small", ZEROS)
    return tmp_path / "all.zip"


def test_files_that_expand_are_refused_wherever_they_are_opened(packed):
    with pytest.raises(DatasetError, match=r"folder/zeros expands from 66,\d+ bytes in its archive to 68,157,440"):
        filesystem_of(f"zip://folder/zeros::{packed}")
    with pytest.raises(DatasetError, match="expands from"), opened(f"zip://folder/zeros::{packed}"):
        pass
    filesystem, path = filesystem_of(f"zip://folder::{packed}")
    with pytest.raises(DatasetError, match="expands from"):
        open_on(filesystem, f"{path}/zeros")
    with pytest.raises(DatasetError, match=r"has 68,157,440 bytes; at most 1,000 are read"):
        read_on(filesystem, f"{path}/zeros", 1000)
    with pytest.raises(FileNotFoundError):
        read_on(filesystem, f"{path}/missing", 1000)


def test_small_ones_and_those_that_hardly_expand_are_read(packed, monkeypatch):
    with opened(f"zip://folder/small::{packed}") as file:
        assert file.read() == ZEROS
    monkeypatch.setattr(archives, "MOST_EXPANSION", 2000)
    filesystem, path = filesystem_of(f"zip://folder::{packed}")
    assert read_on(filesystem, f"{path}/zeros", 2**27) == ZEROS * 65


def test_sparse_files_of_a_tar_are_refused(tmp_path):
    entry = tarfile.TarInfo("hole")
    entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**35)}
    entry.size = 1
    with tarfile.open(tmp_path / "all.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(DatasetError, match="hole, in a tar archive, is a sparse file"):
        filesystem_of(f"tar://hole::{tmp_path / 'all.tar'}")
