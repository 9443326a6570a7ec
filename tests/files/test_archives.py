"""Files in archives: what expands without bounds is refused before it is read."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile

import pytest
from fsspec.implementations.zip import ZipFileSystem
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import DatasetError
from rarkit.files import archives
from rarkit.files.archives import check_archive, check_directory
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


def zipped(names, comment=b"", before=b""):
    file = io.BytesIO()
    file.write(before)
    with zipfile.ZipFile(file, "a" if before else "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
        archive.comment = comment
    return file


@given(
    count=st.integers(0, 30),
    most=st.integers(1, 30),
    comment=st.binary(max_size=300),
    before=st.binary(max_size=100),
    length=st.integers(3, 90),
    in_64_bits=st.booleans(),
    claimed=st.integers(0, 40),
)
def test_the_files_of_a_zip_archive_are_counted_whatever_it_says(count, most, comment, before, length, in_64_bits, claimed):
    with pytest.MonkeyPatch.context() as patch:
        if in_64_bits:
            patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", -1)
        file = zipped([f"{number:0{length}}" for number in range(count)], comment, before)
        patch.setattr(archives, "MOST_MEMBERS", most)
        end = file.getvalue().rindex(b"PK\5\6")
        file.getbuffer()[end + 8 : end + 12] = struct.pack("<HH", claimed, claimed)
        # Python does not believe it either.
        assert len(zipfile.ZipFile(file).namelist()) == count
        if count <= most:
            check_directory(file, "a.zip", DatasetError)
        else:
            with pytest.raises(DatasetError, match=rf"a\.zip has more than {most} files, .* Unpack it"):
                check_directory(file, "a.zip", DatasetError)


@given(st.binary(max_size=200))
def test_what_is_no_zip_archive_is_for_others_to_say(data):
    check_directory(io.BytesIO(data), "a.zip", DatasetError)
    check_directory(io.BytesIO(data + b"PK\5\6" + data[:18]), "a.zip", DatasetError)


def test_a_zip_archive_of_too_many_files_is_refused_before_they_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)
    for count, name in ((5, "few.zip"), (6, "many.zip"), (5, "long.zip")):
        (tmp_path / name).write_bytes(zipped([f"train/a/{number}.png" for number in range(count)]).getvalue())
    assert len(filesystem_of(f"zip://train::{tmp_path}/few.zip")[0].find("train")) == 5
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(DatasetError, match=r"many\.zip has more than 5 files"):
        filesystem_of(f"zip://train::{tmp_path}/many.zip")
    monkeypatch.setattr(archives, "LARGEST_DIRECTORY", 10)
    with pytest.raises(DatasetError, match=r"long\.zip has more than 5 files"):
        filesystem_of(f"zip://train::{tmp_path}/long.zip")


NAMES = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join) | st.sampled_from(["a/", "b/c/"]),
    unique=True,
    max_size=6,
)


@given(NAMES)
def test_a_brief_list_is_fsspecs_own(names):
    file = zipped(names)
    brief, own = ZipFileSystem(file), ZipFileSystem(file)
    check_archive(brief, DatasetError)
    own._get_dirs()
    about = {name: tuple(entry[key] for key in ("name", "size", "type")) for name, entry in own.dir_cache.items()}
    assert {name: tuple(entry.values()) for name, entry in brief.dir_cache.items()} == about
    for folder in ("", "a", "a/b", "c"):
        assert brief.find(folder) == own.find(folder)
        assert brief.exists(folder) == own.exists(folder)
