"""Listing ends in folders that are no folders of images: a whole disk, or one nested without end."""

from __future__ import annotations

import fsspec
import pytest

from rarkit.datasets import image_listing
from rarkit.datasets.image_folder import ImageFolder
from rarkit.errors import DatasetError


def test_a_folder_of_other_files_is_a_wrong_one(tmp_path, monkeypatch):
    monkeypatch.setattr(image_listing, "MOST_OTHERS", 20)
    for number in range(21):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(
        DatasetError, match=r"has more than 20 files and folders that are no images, and 0 images\. Name the folder"
    ):
        ImageFolder(path=str(tmp_path)).info()


def test_other_files_beside_as_many_images_are_passed_over(monkeypatch):
    monkeypatch.setattr(image_listing, "MOST_OTHERS", 20)
    names = [f"/many/{folder}/{number}.{ending}" for folder, ending in (("a", "jpg"), ("b", "txt")) for number in range(30)]
    fsspec.filesystem("memory").pipe(dict.fromkeys(names, b""))
    listing = image_listing.listed("memory://many", "")
    assert (len(listing.by_folder["a"]), listing.passed_files) == (30, 30)


def test_folders_a_hundred_deep(tmp_path):
    (tmp_path / "/".join(["a"] * 100)).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"folders that lie more than \d+ deep in each other, as .*a/a/\. Name the folder"):
        ImageFolder(path=str(tmp_path)).info()
