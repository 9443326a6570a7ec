"""Training and test data are kept apart, whichever dataset reads them, and by whichever path they are named."""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.image_list import ImageList
from rarkit.datasets.npz import Npz
from rarkit.datasets.splits import check_apart
from rarkit.datasets.webdataset import WebDataset
from rarkit.errors import DatasetError, RarkitWarning

SIZE = 4
PLACES = itertools.count()
GIVEN = {"size": SIZE, "workers": 0}


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), shade, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def here(tmp_path):
    """Folders, lists, shards and arrays, of which ``train`` and ``val`` share nothing."""
    for number, name in enumerate(("train/a/1", "train/a/2", "train/b/3", "val/a/4", "val/b/5")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(png(number))
    for split in ("train", "val"):
        files = sorted((tmp_path / split).rglob("*.png"))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps({"file": str(file), "label": "a"}) for file in files))
        with tarfile.open(tmp_path / f"{split}.tar", "w") as archive:
            archive.add(files[0], "0.png")
        arrays = {
            "images": np.stack([np.asarray(Image.open(file)) for file in files]),
            "labels": np.zeros(len(files), dtype=np.int64),
        }
        np.savez(tmp_path / f"{split}.npz", **arrays)
    return tmp_path


PARTS = {
    "image_folder": lambda here, test: ImageFolder(path=str(here), test=test, **GIVEN),
    "image_list": lambda here, test: ImageList(
        path=f"{here}/train.jsonl", test_path=f"{here}/{test}.jsonl", root=str(here.resolve()), **GIVEN
    ),
    "webdataset": lambda here, test: WebDataset(urls=f"{here}/train.tar", test_urls=f"{here}/{test}.tar", num_classes=1, **GIVEN),
    "npz": lambda here, test: Npz(path=f"{here}/train.npz", test_path=f"{here}/{test}.npz"),
}
SUFFIX = {"image_folder": "", "image_list": ".jsonl", "webdataset": ".tar", "npz": ".npz"}


@pytest.mark.parametrize("name", PARTS)
def test_the_same_data_for_both_is_refused_by_whichever_path(here, name):
    assert set(PARTS[name](here, "val").content()) >= {"train", "test"}
    (here / f"again{SUFFIX[name]}").symlink_to(f"train{SUFFIX[name]}")
    for test in ("train", "./train", "again"):
        part = PARTS[name](here, test)
        for _ in range(2):  # what is refused is refused again
            with pytest.raises(DatasetError, match=r"all test (images|shards) are training (images|shards), too \(.*\)\. Set test"):
                part.content()


@pytest.mark.parametrize("root", ["local", "memory"])
def test_a_test_folder_inside_that_of_training(here, root):
    place = str(here)
    if root == "memory":
        place = f"memory://apart-{here.name}"
        fsspec.filesystem("memory").put(f"{here}/train", f"{place.removeprefix('memory:/')}/train", recursive=True)
    inside = ImageFolder(path=place, train="train", test="train/a", label_by="nothing", **GIVEN)
    with pytest.raises(DatasetError, match=r'train/a: all test images are.*1\.png.*other images, or test = "" for no test split'):
        inside.content()
    around = ImageFolder(path=place, train="train/a", test="train", label_by="nothing", **GIVEN)
    with pytest.warns(RarkitWarning, match=r"train: 2 of 3 test images are training images, too \(.*\), so what is measured"):
        around.content()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_files_of_a_folder_that_are_those_of_the_other(here, link):
    link(here / "train/b/3.png", here / "val/b/6.png")
    with pytest.warns(RarkitWarning, match=r"val: 1 of 3 test images are training images, too \(.*val/b/6\.png\), so what is"):
        ImageFolder(path=str(here), **GIVEN).content()
    rows = [("train/b/3.png", "train"), ("val/b/6.png", "test")]
    (here / "one.jsonl").write_text("\n".join(json.dumps({"file": file, "part": part}) for file, part in rows))
    with pytest.raises(DatasetError, match=r"all test images are training images, too \(.*val/b/6\.png\)\. List each file once"):
        ImageList(path=f"{here}/one.jsonl", label_column="", split_column="part", **GIVEN).content()


def test_an_image_that_lies_twice_in_a_folder_that_is_split(here):
    os.symlink("3.png", here / "train/b/6.png")
    with pytest.raises(DatasetError, match=r"all test images are training images, too \(.*[36]\.png\)\. Remove links to the same"):
        ImageFolder(path=f"{here}/train/b", train="", **GIVEN).content()


def test_arrays_that_are_there_twice(here):
    with np.load(here / "train.npz") as arrays:
        np.savez(
            here / "both.npz", images=arrays["images"], labels=arrays["labels"], others=arrays["images"], y_test=arrays["labels"]
        )
        np.savez_compressed(here / "copy.npz", x=arrays["images"], y=arrays["labels"])
    for part in (Npz(path=f"{here}/both.npz", test_images="others"), PARTS["npz"](here, "copy")):
        with pytest.raises(DatasetError, match=r"all test images are training images, too \((others|x)\.npy\)\. Set test_path to"):
            part.content()


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_what_is_refused_and_what_is_told(train, test):
    names = {number: f"f{number}" for number in sorted(test)}
    shared = len(train & test)

    def check(may_share: bool) -> None:
        # A place of its own, because each notice is given once.
        check_apart(train, names, "files", f"place {next(PLACES)}", "Cure.", may_share=may_share)

    if not shared:
        check(False)
        return
    with pytest.raises(DatasetError, match=r"Cure\.$"):
        check(False)
    if shared == len(test):
        with pytest.raises(DatasetError, match="all test files are training files, too"):
            check(True)
    else:
        with pytest.warns(RarkitWarning, match=f"{shared} of {len(test)} test files are training files, too"):
            check(True)
