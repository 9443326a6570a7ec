"""Folders as people have them: left-overs of systems, no folders for the splits, no class folders, transparent images."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rarkit.datasets import notices
from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.npz import Npz
from rarkit.datasets.webdataset import WebDataset
from rarkit.errors import RarkitWarning

SIZE = 4
pytestmark = pytest.mark.filterwarnings("ignore::rarkit.errors.RarkitWarning")


@pytest.fixture
def told(request, recwarn, monkeypatch):
    """What was said since the last call."""
    request.node.add_marker(pytest.mark.filterwarnings("always::rarkit.errors.RarkitWarning"))
    monkeypatch.setattr(notices, "_GIVEN", set())
    return lambda: [str(recwarn.pop(RarkitWarning).message) for _ in range(len(recwarn))]


def png(pixels, mode: str | None = None, **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(np.asarray(pixels, dtype=np.uint8)) if mode is None else pixels.convert(mode)).save(file, "PNG", **options)
    return file.getvalue()


def grey(level: int) -> bytes:
    return png(np.full((SIZE, SIZE, 3), level))


def planted(root: str, files: dict[str, bytes]) -> str:
    filesystem, path = fsspec.core.url_to_fs(root)
    for name, data in files.items():
        filesystem.makedirs(f"{path}/{name}".rsplit("/", 1)[0], exist_ok=True)
        filesystem.pipe_file(f"{path}/{name}", data)
    return root


def levels(dataset, split="train"):
    block = dataset.open(split).read()
    return list(zip(block.images_NHWC[:, 0, 0, 0].tolist(), block.labels_N.tolist(), strict=True))


LEFT_OVER = {
    "train/__MACOSX/cat/._1.png": b"",
    "train/@eaDir/cat/1.png/SYNOPHOTO_THUMB_M.jpg": grey(9),
    "train/cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg": grey(9),
    "train/raw/1.CR2": b"",
    "train/cat/Thumbs.db": b"",
    "train/cat/notes.txt": b"",
    "train/dog/labels.csv": b"",
    "train/stray.png": grey(9),
    "train/.DS_Store": b"",
    "train/.cache/1.png": grey(9),
}


@pytest.mark.parametrize("root", ["", "memory://"])
def test_folders_without_an_image_are_no_classes_and_are_mentioned_once(tmp_path, root, told):
    place = planted(f"{root}{tmp_path}", LEFT_OVER | {"train/cat/1.png": grey(1), "train/dog/deeper/2.png": grey(2)})
    dataset = ImageFolder(path=place, test="", size=SIZE, workers=0)
    assert dataset.info().class_names == ("cat", "dog")
    assert levels(dataset) == [(1, 0), (2, 1)]
    ImageFolder(path=place, test="", size=SIZE, workers=2).content()
    assert told() == [
        f"{place}/train: passed over 4 folders without images (@eaDir, __MACOSX, cat/@eaDir and 1 more), "
        "4 files that are not images (cat/Thumbs.db, cat/notes.txt, dog/labels.csv and 1 more), "
        "1 image that lies in no folder (stray.png)"
    ]


def test_empty_folders_and_those_that_nobody_may_read(tmp_path, told):
    planted(str(tmp_path), {"train/cat/1.png": grey(1)})
    (tmp_path / "train/empty/deeper").mkdir(parents=True)
    (tmp_path / "train/lost+found").mkdir(mode=0)
    assert ImageFolder(path=str(tmp_path)).classes() == ("cat",)
    assert told() == [f"{tmp_path}/train: passed over 2 folders without images (empty, lost+found)"]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from(["1.png", "x/2.JPG", "3.txt", "y/.4.png"]), unique=True))
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_classes_are_the_folders_with_images(tmp_path_factory, folders):
    root = tmp_path_factory.mktemp("any")
    for folder, names in folders.items():
        (root / "train" / folder).mkdir(parents=True)
        planted(str(root / "train" / folder), dict.fromkeys(names, b""))
    usable = sorted(folder for folder, names in folders.items() if {"1.png", "x/2.JPG"} & {*names})
    if usable:
        assert ImageFolder(path=str(root)).classes() == tuple(usable)


def test_only_the_first_rank_mentions_them(tmp_path, monkeypatch, told):
    place = planted(str(tmp_path), LEFT_OVER | {"train/cat/1.png": grey(1)})
    monkeypatch.setenv("RANK", "1")
    ImageFolder(path=place).classes()
    assert told() == []
    monkeypatch.setenv("RANK", "0")
    ImageFolder(path=place).classes()
    assert len(told()) == 1


def test_workers_repeat_nothing(tmp_path):
    """Seen from outside: one line, whatever is read by how many processes."""
    clear = png(np.full((SIZE, SIZE, 4), 0))
    place = planted(str(tmp_path), {f"train/cat/{i:02}.png": clear for i in range(60)} | {"train/notes.txt": b""})
    script = (
        "from rarkit.datasets.image_folder import ImageFolder\n"
        "if __name__ == '__main__':\n"
        f"    dataset = ImageFolder(path={place!r}, test='', size=4, workers=2)\n"
        "    dataset.content(), dataset.open('train').read(), dataset.open('train').read()\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.stderr.count("RarkitWarning") == 2
    assert done.stderr.count("passed over 1 file that is not an image (notes.txt)") == 1
    assert done.stderr.count("00.png has transparent pixels") == 1


UNSPLIT = {f"{folder}/{i}.png": grey(16 * label + i) for label, folder in enumerate(("cat", "dog")) for i in range(10)}


@pytest.mark.parametrize("root", ["", "memory://"])
def test_a_folder_without_splits_is_split(tmp_path, root, told):
    place = planted(f"{root}{tmp_path}", UNSPLIT)
    dataset = ImageFolder(path=place, size=SIZE, workers=0)
    with pytest.warns(
        RarkitWarning, match=r"no folders train and val: of its 20 images, 4 are held out .*test_fraction = 0\.2"
    ) as told:
        train, test = levels(dataset), levels(dataset, "test")
    assert len(told) == 1
    assert dataset.info().class_names == ("cat", "dog")
    assert sorted(train + test) == [(16 * label + i, label) for label in range(2) for i in range(10)]
    assert train == sorted(train)
    assert [label for _, label in test] == [0, 0, 1, 1]
    assert (dataset.count("train"), dataset.count("test")) == (16, 4)


def test_the_split_depends_on_fraction_and_seed_alone(tmp_path):
    place = planted(str(tmp_path), UNSPLIT)

    def held_out(**changes):
        dataset = ImageFolder(path=place, size=SIZE, workers=0, **changes)
        return levels(dataset, "test"), dataset.identity()["content"]

    assert held_out() == held_out(test_fraction=0.2, split_seed=0)
    assert held_out(split_seed=1) != held_out()
    assert [label for _, label in held_out(test_fraction=0.5)[0]] == [0] * 5 + [1] * 5
    everything = ImageFolder(path=place, size=SIZE, workers=0, test="")
    assert (everything.splits(), len(everything.open("train"))) == (("train",), 20)


def test_skipping_bad_images_keeps_the_splits_apart(tmp_path):
    place = planted(str(tmp_path), UNSPLIT | {"cat/3.png": b"bad"})
    dataset = ImageFolder(path=place, size=SIZE, workers=0, on_bad_image="skip", split_seed=2)
    rows = levels(dataset) + levels(dataset, "test")
    assert sorted(rows) == [(16 * label + i, label) for label in range(2) for i in range(10) if (label, i) != (0, 3)]


def test_bad_images_of_another_working_folder_are_others(tmp_path, monkeypatch):
    """Of files with the same names and sizes, at the same relative place."""
    for bad in (1, 3):
        damaged = grey(bad)[:-20] + bytes(20)
        planted(str(tmp_path / f"{bad}/images"), {f"{i}.png": damaged if i == bad else grey(i) for i in range(5)})
        monkeypatch.chdir(tmp_path / f"{bad}")
        dataset = ImageFolder(path="images", train="", test="", size=SIZE, workers=0, on_bad_image="skip")
        assert [level for level, _ in levels(dataset)] == [i for i in range(5) if i != bad]


def test_classes_called_like_splits_are_meant_by_an_empty_train(tmp_path):
    place = planted(str(tmp_path), {"train/1.png": grey(1), "train/2.png": grey(2), "tram/3.png": grey(3), "tram/4.png": grey(4)})
    dataset = ImageFolder(path=place, train="", size=SIZE, workers=0)
    assert dataset.info().class_names == ("train", "tram")
    assert [label for _, label in levels(dataset, "test")] == [0, 1]


@pytest.mark.parametrize("files", [UNSPLIT, {f"train/{i}.png": grey(i) for i in range(5)}])
def test_images_without_class_folders_are_one_class(tmp_path, files):
    files = {name.replace("cat/", "cat-").replace("dog/", "dog-"): data for name, data in files.items()}
    dataset = ImageFolder(path=planted(str(tmp_path), files), test="", size=SIZE, workers=0)
    assert dataset.info().class_names == ("images",)
    assert [level for level, _ in levels(dataset)] == sorted_levels(files)


def sorted_levels(files: dict[str, bytes]) -> list[int]:
    return [int(np.asarray(Image.open(io.BytesIO(files[name])))[0, 0, 0]) for name in sorted(files)]


def test_a_flat_folder_is_split_too(tmp_path, told):
    place = planted(str(tmp_path), {f"{i}.png": grey(i) for i in range(10)})
    dataset = ImageFolder(path=place, size=SIZE, workers=0)
    assert sorted(levels(dataset) + levels(dataset, "test")) == [(i, 0) for i in range(10)]
    assert "of its 10 images, 2 are held out" in told()[0]


HALF = np.dstack([np.full((SIZE, SIZE), level) for level in (200, 100, 0, 127)])
"""One colour at an opacity of 127 / 255."""


@pytest.fixture
def half_transparent(tmp_path):
    """The same image in each dataset that may hold transparent ones, by part."""
    import tarfile

    planted(str(tmp_path), {"train/a/1.png": png(HALF)})
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("1.png", png(HALF)), ("1.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    np.savez(tmp_path / "a.npz", images=HALF[None].astype(np.uint8), labels=np.zeros(1, np.int64))
    return lambda **changes: {
        "image_folder": ImageFolder(path=str(tmp_path), test="", size=SIZE, workers=0, **changes),
        "webdataset": WebDataset(urls=f"{tmp_path}/a.tar", num_classes=1, size=SIZE, workers=0, **changes),
        "npz": Npz(path=f"{tmp_path}/a.npz", **changes),
    }


@pytest.mark.parametrize("part", ["image_folder", "webdataset", "npz"])
@pytest.mark.parametrize(("background", "colour"), [(None, [228, 178, 128]), ((0, 0, 255), [100, 50, 128])])
def test_every_reader_lays_transparent_images_on_the_background(half_transparent, part, background, colour, told):
    dataset = half_transparent(**({} if background is None else {"background": background}))[part]
    pixels = [dataset.open("train").read().images_NHWC for _ in range(2)]
    (message,) = told()
    assert "has transparent pixels" in message
    assert f"background {dataset.background}" in message
    for images_NHWC in pixels:
        np.testing.assert_array_equal(images_NHWC, np.full((1, SIZE, SIZE, 3), colour))
    assert dataset.info().channels == 3
