"""Links in a folder of data: followed, counted by where they lead, and refused where they have no end."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.links import folded, sentence
from rarkit.datasets.webdataset import WebDataset
from rarkit.errors import DatasetError
from tests.limits import refusal


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def data(tmp_path):
    """Folders of the data, ``data``, and of others, ``blobs`` and ``set``."""
    for name in ("data/train/cat/1.png", "data/train/dog/2.png", "blobs/a", "blobs/b", "set/bird/3.png", "set/bird/4.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    return tmp_path / "data"


def dataset(data, **settings) -> ImageFolder:
    return ImageFolder(path=str(data), size=8, test="", workers=0, **settings)


def test_links_are_followed_and_those_that_lead_out_are_counted(data):
    none = dataset(data)
    assert none.count("train") == 2
    assert none.links_out() == {}
    outside = data.parent
    (data / "train/cat/blob.png").symlink_to("../../../blobs/a")
    (data / "train/cat/again.png").symlink_to("blob.png")
    (data / "train/dog/blob.png").symlink_to(outside / "blobs/b")
    (data / "train/dog/inside.png").symlink_to(data / "train/cat/1.png")
    (data / "train/bird").symlink_to(outside / "set/bird")
    (outside / "set/bird/5.png").symlink_to("4.png")
    linked = dataset(data)
    assert linked.count("train") == 2 + 4 + 3
    assert linked.links_out() == {str(outside / "blobs"): 3, str(outside / "set/bird"): 1}
    assert linked.open("train").read().images_NHWC.shape == (9, 8, 8, 3)


def test_a_split_or_the_folder_itself_may_be_a_link(data):
    outside = data.parent
    (outside / "other").symlink_to("data")
    assert dataset(outside / "other").count("train") == 2
    (outside / "split").mkdir()
    (outside / "split/train").symlink_to("../data/train")
    for path, links in ((outside / "other", {}), (outside / "split", {str(data / "train"): 1})):
        through = dataset(path)
        assert through.count("train") == 2
        assert through.links_out() == links


def test_links_without_end_are_refused(data):
    (data / "train/cat/loop").symlink_to("../../..")
    assert "cat/loop is a link to" in refusal(lambda: dataset(data).count("train"))
    (data / "train/cat/loop").unlink()
    (data / "train/cat/dog").symlink_to("../dog")
    (data / "train/dog/cat").symlink_to("../cat")
    with pytest.raises(
        DatasetError, match=r"is a link to .*train/(cat|dog), in which it lies itself: it has no end\. Remove it\.$"
    ):
        dataset(data).count("train")


def test_folders_with_a_million_paths_are_refused(data):
    for depth in range(20):
        folder = data / f"train/{depth:02}"
        folder.mkdir()
        for name in ("left", "right"):
            (folder / name).symlink_to(f"../{depth + 1:02}")
    (data / "train/20").mkdir()
    assert "is reached through more than 100 links" in refusal(lambda: dataset(data).count("train"))


def test_links_to_shards_are_counted(data, tmp_path):
    (tmp_path / "blobs/c").write_bytes(bytes(1024))
    (data / "0.tar").symlink_to("../blobs/c")
    (data / "1.tar").write_bytes(bytes(1024))
    (data / "2.tar").symlink_to("1.tar")
    assert WebDataset(urls=f"{data}/{{0..2}}.tar", num_classes=2).links_out() == {str(tmp_path / "blobs"): 1}


FOLDERS = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda steps: "/" + "/".join(steps)), st.integers(1, 9), min_size=1
)


@given(FOLDERS)
def test_many_folders_are_told_by_their_parents(folders):
    told = folded(folders)
    assert sum(told.values()) == sum(folders.values())
    assert all(any(folder == above or folder.startswith(f"{above}/") for above in told) for folder in folders)
    if len(folders) <= 3:
        assert told == folders
    assert list(told.values()) == sorted(told.values(), reverse=True)


def test_what_is_said():
    assert sentence({}) == ""
    assert sentence({"/etc": 1}) == "1 link leads out of the data's folder: 1 to /etc."
    classes = {f"/data/imagenet/train/n{number}": 2 for number in range(500)} | {"/etc": 1}
    assert sentence(folded(classes)) == "1,001 links lead out of the data's folder: 1,000 to /data/imagenet/train, 1 to /etc."
    many = {"/a": 4, "/b": 3, "/c": 2, "/d": 1, "/e": 1}
    assert sentence(many).endswith("4 to /a, 3 to /b, 2 to /c, 2 elsewhere.")
