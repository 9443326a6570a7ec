"""Whatever file systems raise becomes one error of ours that names the place and the cure."""

from __future__ import annotations

import os
import re

import pytest

from rarkit.errors import DatasetError, StoreError, WeightsError
from rarkit.files.locations import filesystem_of, reaching, reads_next, within

CURE = "Check the place, and that you may read it."


class OfAnotherLibraryError(Exception):
    """Such as botocore's, which are no OSErrors."""


@pytest.mark.parametrize("raising", [DatasetError, WeightsError, StoreError])
@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("memory://a", FileNotFoundError("/a"), f"there is no memory://a. {CURE}"),
        ("memory://a", FileNotFoundError(2, "No such file", "/b"), f"there is no /b, which memory://a needs. {CURE}"),
        ("s3://a", ImportError("Install s3fs"), 's3://a needs a library that is not installed: pip install "rarkit[s3]"'),
        ("zip://a::hf://b", ImportError("x"), "zip://a::hf://b needs a library that is not installed: x"),
        ("abc://a", ImportError("Install abcfs"), "abc://a needs a library that is not installed: Install abcfs"),
        ("s3://a", OfAnotherLibraryError("denied"), f"s3://a cannot be reached (OfAnotherLibraryError: denied). {CURE}"),
        ("s3://a", TimeoutError(), f"s3://a cannot be reached (TimeoutError). {CURE}"),
    ],
)
def test_errors_name_the_place_and_the_cure(raising, place, error, message):
    with pytest.raises(raising, match=f"^{re.escape(message)}$") as caught, reaching(place, raising=raising):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(("place", "named"), [("file", "is a file"), ("file/below", "lies below a file")])
def test_a_file_where_a_folder_is_needed_is_called_that(place, named, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=f"{place} {named}, where a folder is needed"), reaching(str(tmp_path / place)):
        os.listdir(tmp_path / "file" / "below")


def test_a_missing_path_is_named_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    places = ["data/train", "./data/../data/train/", str(tmp_path / "data/train"), "link/train"]
    for place in places:
        filesystem, path = filesystem_of(place)
        with pytest.raises(DatasetError, match=f"^there is no {re.escape(place)}\\. "), reaching(place):
            filesystem.ls(path)
    (tmp_path / "data").mkdir()
    with pytest.raises(DatasetError, match=r"^there is no train/cat in data\. "), reaching("data"):
        (tmp_path / "data/train/cat").read_bytes()


@pytest.mark.parametrize("error", [DatasetError("damaged"), WeightsError("damaged"), MemoryError("full")], ids=repr)
def test_errors_that_say_enough_pass_through(error):
    with pytest.raises(type(error)) as caught, reaching("s3://a", raising=StoreError):
        raise error
    assert caught.value is error


def test_an_unknown_protocol_is_the_asked_for_error():
    for raising in (DatasetError, WeightsError):
        with pytest.raises(raising, match=r"zzz://a names a file system that nothing here knows"):
            filesystem_of("zzz://a", raising=raising)


def test_a_folder_within_a_place():
    assert within("photos/", "train") == "photos/train"
    assert within("s3://bucket/photos", "train") == "s3://bucket/photos/train"
    assert within("zip://photos::s3://bucket/all.zip", "train") == "zip://photos/train::s3://bucket/all.zip"
    assert within("zip://::all.zip", "train") == "zip://train::all.zip"


@pytest.mark.parametrize(
    "place", ["a.npz::b.npz", "s3://a/b::c", "memory://a::memory://b", "zip://x::a.zip::b.zip", "nosuchplace::b"]
)
def test_several_places_are_refused(place):
    """fsspec would read the first, and ignore the others."""
    with pytest.raises(DatasetError, match="is more than one place"):
        filesystem_of(place)


@pytest.mark.parametrize("place", ["zip://x::a.zip", "simplecache::memory://a", "filecache::zip://x::memory://a", "dir::file:///a"])
def test_chains_of_file_systems_are_one_place(place):
    assert [reads_next(link) for link in place.split("::")] == [True] * place.count("::") + [False]
