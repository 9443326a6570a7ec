"""Shards: the library's own writer as the witness, order, counts, what shards lack, and damage."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from rarkit.datasets import shards
from rarkit.datasets.imagenet import class_names, synsets
from rarkit.datasets.preparation import centre_crop, ten_crop
from rarkit.datasets.shard_labels import LabelReader, unambiguous
from rarkit.datasets.shards import MOST_FILES, expanded
from rarkit.datasets.webdataset import WebDataset
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.testing import DatasetSuite

wds = pytest.importorskip("webdataset")
SIZE, COUNTS = 12, (9, 4, 14)


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (17, 23, 3), dtype=np.uint8))


def png(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return file.getvalue()


def shard(path, samples) -> None:
    """What the library writes; ``samples`` are dictionaries by ending."""
    with wds.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"n01/{number:04}"} | sample)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    number = 0
    for index, count in enumerate(COUNTS):
        shard(root / f"train-{index:03}.tar", [{"png": png(number + i), "cls": (number + i) % 5, "json": {}} for i in range(count)])
        number += count
    shard(root / "test.tar", [{"png": png(100 + i), "cls": 4} for i in range(3)])
    (root / "sizes.json").write_text(json.dumps({f"train-{i:03}.tar": count for i, count in enumerate(COUNTS)} | {"test.tar": 3}))
    return root


def dataset(folder, **changes) -> WebDataset:
    chosen = {"urls": f"{folder}/train-{{000..002}}.tar", "num_classes": 5, "size": SIZE, "workers": 0} | changes
    return WebDataset(**chosen)


def expected(numbers, ten: bool = False):
    views = [ten_crop(picture(number), SIZE) if ten else [centre_crop(picture(number), SIZE)] for number in numbers]
    return np.stack([np.asarray(view) for group in views for view in group])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("crop", ["centre", "ten"])
def test_rows_are_samples_in_order(folder, crop, workers):
    found = dataset(folder, crop=crop, workers=workers, test_urls=f"{folder}/test.tar")
    block = found.open("train").read()
    np.testing.assert_array_equal(block.images_NHWC, expected(range(27), crop == "ten"))
    np.testing.assert_array_equal(block.labels_N, np.repeat(np.arange(27) % 5, 10 if crop == "ten" else 1))
    test = found.open("test").read()
    np.testing.assert_array_equal(test.images_NHWC, expected(range(100, 103)))
    assert set(test.labels_N) == {4}


class TestSuite(DatasetSuite):
    @pytest.fixture(params=["counted", "listed"])
    def part(self, folder, request):
        return dataset(folder) if request.param == "counted" else dataset(folder, sizes=f"{folder}/sizes.json")


@given(st.lists(st.tuples(st.integers(0, 27), st.integers(0, 27), st.integers(1, 30)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_one_after_the_other_and_at_the_same_time(folder, requests):
    whole = expected(range(27))
    reader = dataset(folder).open("train")
    running = [(reader.blocks(*request), request) for request in requests]
    parts = {index: [] for index in range(len(running))}
    waiting = dict(enumerate(blocks for blocks, _ in running))
    while waiting:  # one block of each in turn
        for index, blocks in list(waiting.items()):
            block = next(blocks, None)
            if block is None:
                del waiting[index]
            else:
                parts[index].append(block.images_NHWC)
    for index, (_, (start, stop, _)) in enumerate(running):
        if start < stop:
            np.testing.assert_array_equal(np.concatenate(parts[index]), whole[start:stop])


def test_reading_on_does_not_begin_the_shard_again(folder, monkeypatch):
    opened = []
    plain = shards.samples
    monkeypatch.setattr(shards, "samples", lambda place, wanted: opened.append(place) or plain(place, wanted))
    reader = dataset(folder).open("train")
    for row in range(27):
        reader.read(row, row + 1)
    assert opened == [f"{folder}/train-{index:03}.tar" for index in range(3)]
    reader.read(0, 1)
    assert len(opened) == 4


def test_in_memory_and_compressed(folder):
    memory = fsspec.filesystem("memory")
    for index in range(3):
        memory.pipe_file(f"/shards/train-{index:03}.tar", (folder / f"train-{index:03}.tar").read_bytes())
    found = dataset("memory://shards", workers=2).open("train").read()
    np.testing.assert_array_equal(found.images_NHWC, expected(range(27)))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed, tarfile.open(folder / "train-000.tar") as plain:
        for member in plain:
            packed.addfile(member, plain.extractfile(member))
    memory.pipe_file("/shards/packed.tar.gz", file.getvalue())
    found = dataset("", urls="memory://shards/packed.tar.gz").open("train").read()
    np.testing.assert_array_equal(found.images_NHWC, expected(range(9)))


def test_counting_passes_over_what_reading_passes_over(tmp_path):
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as file:
        for name, data in {
            "__meta__/0.png": b"",
            "a/0.PNG": png(0),
            "a/0.CLS": b"1\n",
            "a/0.seg.png": b"",
            "b/0.png": png(1),
            "b/0.cls": b" 2",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
        folder = tarfile.TarInfo("c")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
    block = dataset("", urls=str(path)).open("train").read()
    np.testing.assert_array_equal(block.images_NHWC, expected(range(2)))
    assert block.labels_N.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({"png": png(0)}, r"n01/0000 has no label \(cls\); it has: png\. Set"),
        ({"gif": b"", "cls": 0}, r"n01/0000 has no image \(jpg, jpeg, png, webp\); it has: cls, gif\. Set"),
        (
            {"png": png(0), "cls": b"cat"},
            r"n01/0000\.cls should be a whole number, but is 'cat'\. If labels are names, set class_names",
        ),
        ({"png": png(0), "cls": 5}, "has the label 5, but the 5 classes are 0 to 4"),
        ({"png": png(0), "cls": -1}, "has the label -1"),
        ({"png": png(0)[:99], "cls": 0}, r"one\.tar: n01/0000\.png \(99 bytes\) cannot be read as an image"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_sample_lacks(tmp_path, sample, said, workers):
    shard(tmp_path / "one.tar", [sample] + [{"png": png(i), "cls": 0} for i in range(20)])
    with pytest.raises(DatasetError, match=said):
        dataset("", urls=str(tmp_path / "one.tar"), workers=workers).open("train").read()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_and_counted(tmp_path, workers):
    shard(tmp_path / "a.tar", [{"png": b"bad" if i in (0, 7) else png(i), "cls": 0} for i in range(12)])
    shard(tmp_path / "b.tar", [{"png": b"", "cls": 0}] + [{"png": png(20 + i), "cls": 0} for i in range(10)])
    with pytest.warns(RarkitWarning, match=r"^3 of 23 images are skipped(.*\n){3}.*b\.tar: n01/0000\.png"):
        reader = dataset("", urls=f"{tmp_path}/{{a,b}}.tar", on_bad_image="skip", workers=workers).open("train")
    good = [i for i in range(12) if i not in (0, 7)] + list(range(20, 30))
    np.testing.assert_array_equal(reader.read().images_NHWC, expected(good))
    np.testing.assert_array_equal(reader.read(9, 14).images_NHWC, expected(good[9:14]))


@pytest.mark.parametrize("place", ["nothing", "first header", "first label", "last header", "last image"])
def test_damaged_shards_are_named(folder, tmp_path, place):
    with tarfile.open(folder / "train-002.tar") as whole:
        last = whole.getmembers()[-1]
    ends = {
        "nothing": 0,
        "first header": 100,
        "first label": 513,
        "last header": last.offset + 9,
        "last image": last.offset_data + 9,
    }
    (tmp_path / "cut.tar").write_bytes((folder / "train-002.tar").read_bytes()[: ends[place]])
    (tmp_path / "sizes.json").write_text('{"cut.tar": 14}')
    for changes in ({}, {"sizes": f"{tmp_path}/sizes.json"}):
        with pytest.raises(DatasetError, match=r"cut\.tar.*(damaged or not a shard|has no image|fewer|no samples)") as caught:
            dataset("", urls=str(tmp_path / "cut.tar"), **changes).open("train").read()
        assert "0x" not in str(caught.value)


@pytest.mark.parametrize(("promised", "said"), [(3, "more"), (10, "fewer")])
def test_a_wrong_promise_is_found(folder, tmp_path, promised, said):
    (tmp_path / "sizes.json").write_text(json.dumps({"train-000.tar": promised}))
    reader = dataset("", urls=f"{folder}/train-000.tar", sizes=f"{tmp_path}/sizes.json").open("train")
    assert len(reader) == promised
    with pytest.raises(DatasetError, match=rf"train-000\.tar contains {said} samples than the {promised}"):
        reader.read()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("[1]", "by file name"),
        ('{"a": true}', "by file name"),
        ('{"a": 3}', "no number of samples for train-000"),
    ],
)
def test_sizes_that_say_nothing(folder, tmp_path, text, said):
    (tmp_path / "sizes.json").write_text(text)
    with pytest.raises(DatasetError, match=said):
        dataset(folder, sizes=f"{tmp_path}/sizes.json").open("train")


def test_what_is_not_there(folder):
    with pytest.raises(DatasetError, match=r"there is no .*train-003\.tar"):
        dataset(folder, urls=f"{folder}/train-{{000..003}}.tar").content()
    with pytest.raises(DatasetError, match="no test split"):
        dataset(folder).open("test")
    with pytest.raises(DatasetError, match=r"there is no .*sizes\.json"):
        dataset(folder, sizes="nowhere/sizes.json").open("train")


@given(st.integers(0, 120), st.integers(0, 30), st.integers(1, 5))
def test_ranges_are_the_numbers_between(first, more, width):
    names = expanded(f"s3://b/x-{{{first:0{width}}..{first + more:0{width}}}}{{.tar,.tgz}}")
    assert names == [f"s3://b/x-{number:0{width}}{end}" for number in range(first, first + more + 1) for end in (".tar", ".tgz")]
    braceexpand = pytest.importorskip("braceexpand")
    plain = f"x-{{{first:0{width}}..{first + more:0{width}}}}"
    assert expanded(plain) == list(braceexpand.braceexpand(plain)) or len(f"{first:0{width}}") < len(f"{first + more:0{width}}")


def test_groups_are_read_one_after_the_other(folder):
    """As the library reads them: ``::`` joins groups, each with patterns of its own."""
    pattern = f"{folder}/train-{{000..001}}.tar::{folder}/train-002.tar"
    assert expanded(pattern) == [f"{folder}/train-{index:03}.tar" for index in range(3)] == wds.shardlists.expand_urls(pattern)
    np.testing.assert_array_equal(dataset(folder, urls=pattern).open("train").read().images_NHWC, expected(range(27)))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s3://b/a.tar::c/{0,1}.tar::gs://d.tar", ["s3://b/a.tar", "c/0.tar", "c/1.tar", "gs://d.tar"]),
        ("simplecache::s3://b/{0..1}.tar", ["simplecache::s3://b/0.tar", "simplecache::s3://b/1.tar"]),
        ("zip://a.tar::s3://b/x.zip::c.tar", ["zip://a.tar::s3://b/x.zip", "c.tar"]),
        ("a.tar::filecache::https://b.org/c.tar", ["a.tar", "filecache::https://b.org/c.tar"]),
    ],
)
def test_chains_of_file_systems_are_one_group(pattern, names):
    assert expanded(pattern) == names


def test_a_chained_file_system_is_read(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(folder / "train-000.tar", "in/train-000.tar")
    found = dataset("", urls=f"zip://in/train-000.tar::{tmp_path}/all.zip::{folder}/train-001.tar").open("train")
    np.testing.assert_array_equal(found.read().images_NHWC, expected(range(13)))


def tar(path, files) -> str:
    """A tar file, in the order of ``files``: pairs of name and content."""
    with tarfile.open(path, "w") as written:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            written.addfile(member, io.BytesIO(data))
    return str(path)


def test_an_unsorted_shard_is_called_that(tmp_path):
    files = [(f"{i:04}.png", png(i)) for i in range(300)] + [(f"{i:04}.cls", b"0") for i in range(300)]
    found = dataset("", urls=tar(tmp_path / "unsorted.tar", files)).open("train")
    with pytest.raises(
        DatasetError, match=r"unsorted\.tar: 0000 has no label.*apart in the shard \(0000\.png, 0000\.cls\)"
    ) as caught:
        found.read()
    assert "in the order of their names" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("count", [2, 2000])
def test_names_with_dots_are_called_that(tmp_path, count):
    """All files belong to one sample, ``photo``; it is not gathered in memory, nor listed in the message."""
    files = [(f"photo.{i:06}.{ending}", png(0) if ending == "png" else b"0") for i in range(count) for ending in ("png", "cls")]
    path = tar(tmp_path / "dotted.tar", files)
    with pytest.raises(DatasetError, match=r"name ends at its first dot\. Write the shard with names without other dots") as caught:
        dataset("", urls=path).open("train").read()
    assert ("more than" in str(caught.value)) == (count > MOST_FILES)
    assert len(str(caught.value)) < 500


def test_dots_in_names_can_be_part_of_the_extension(tmp_path):
    files = [(f"{i}.v1.{ending}", png(i) if ending == "png" else b"3") for i in range(4) for ending in ("png", "cls")]
    path = tar(tmp_path / "dotted.tar", files)
    with pytest.raises(DatasetError, match=r"0 has no image .*: its extension is 'v1\.png', because"):
        dataset("", urls=path).open("train").read()
    found = dataset("", urls=path, image="v1.png", label="v1.cls").open("train").read()
    np.testing.assert_array_equal(found.images_NHWC, expected(range(4)))


def test_a_file_that_is_there_twice(tmp_path):
    path = tar(tmp_path / "twice.tar", [("a.png", png(0)), ("a.PNG", png(1)), ("a.cls", b"0")])
    with pytest.raises(
        DatasetError, match=r"twice\.tar has the file 'a\.PNG' twice, or with its extension in upper and in lower case"
    ):
        dataset("", urls=path).open("train")


def test_left_overs_of_systems_are_passed_over(tmp_path):
    """As tar writes them on a Mac."""
    files = [
        (f"{folder}{name}", data)
        for i in range(3)
        for name, data in ((f"{i}.cls", b"1"), (f"{i}.png", png(i)))
        for folder, data in (("./n01/._", b"Mac OS X"), ("./n01/", data), ("__MACOSX/n01/", b"none of ours"))
    ]
    found = dataset("", urls=tar(tmp_path / "mac.tar", files)).open("train").read()
    np.testing.assert_array_equal(found.images_NHWC, expected(range(3)))


NAMES = ("cat", "dog", "7")


@pytest.mark.parametrize(
    ("label", "contents", "settings"),
    [
        ("cls", [b"2", b"0\n", b"+1"], {"num_classes": 3}),
        ("cls", [b"7\xe2\x80\x8b", b"cat", b"dog"], None),
        ("cls", [b"2", b"cat\r\n", b" dog"], {"class_names": NAMES}),
        ("txt", [b"dog", b"dog", b"cat"], {"class_names": NAMES, "label": "txt"}),
        ("json", [b'{"label": 2, "width": 9}', b'{"label": 0}', b'{"label": "1"}'], {"num_classes": 3, "label": "json"}),
        ("json", [b'{"name": "dog"}', b'{"name": 1}'], {"class_names": NAMES, "label": "json", "label_key": "name"}),
        ("cls", [b"n02099601", b"tench", b"5"], {"class_names": class_names()}),
        ("cls", [b"n02099601", b"tench", b"5"], {"class_names": synsets()}),
    ],
)
def test_labels_are_numbers_or_names_in_text_or_json(tmp_path, label, contents, settings):
    files = [(f"{i}.{ending}", data) for i, text in enumerate(contents) for ending, data in (("png", png(i)), (label, text))]
    path = tar(tmp_path / "labels.tar", files)
    if settings is None:
        with pytest.raises(DatasetError, match=r"0\.cls should be a whole number or a class name"):
            WebDataset(urls=path, class_names=NAMES, workers=0).open("train").read()
        return
    names = settings.get("class_names", ("0", "1", "2"))
    also = {"n02099601": 207, "tench": 0, "2": 2, "5": 5, "1": 1, "0": 0, "+1": 1}

    def value(text: bytes) -> str:
        plain = text.decode().strip()
        if label != "json":
            return plain
        return str(next(iter(json.loads(plain).values())))

    wanted = [names.index(value(text)) if value(text) in names else also[value(text)] for text in contents]
    assert WebDataset(urls=path, size=SIZE, workers=0, **settings).open("train").read().labels_N.tolist() == wanted


@pytest.mark.parametrize("label", ["cls", "json"])
@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("0", "10", "3"), {"0": 0, "10": 1, "3": 2}),  # names that are no number of another class
        (("0", "10", "3"), {"0": 0, "1": 1, "2": 2}),  # numbers that are no name of another class
        (("0", "1", "10", "2"), {"0": 0, "1": 1, "2": None, "10": 2, "3": 3}),
        (("1", "2", "3"), {"0": 0, "1": None, "2": None, "3": 2}),
        (("03", "01", "02"), {"03": 0, "01": 1, "02": 2}),
        (("01", "02"), {"01": None, "02": 1}),
    ],
)
def test_labels_that_are_the_name_of_one_class_and_the_number_of_another(names, labels, label):
    reader = LabelReader(label, "label", names, named=True)
    for text, wanted in labels.items():
        # In JSON, numbers may be numbers or text.
        forms = [json.dumps({"label": value}) for value in (text, *([int(text)] if str(int(text)) == text else []))]
        for data in forms if label == "json" else [text]:
            if wanted is not None:
                assert reader.label(data.encode(), "x") == wanted
                continue
            with pytest.raises(DatasetError, match=f"is the name of class {names.index(text)} and the number of class {int(text)}"):
                reader.label(data.encode(), "x")


@given(st.lists(st.sampled_from([*map(str, range(12)), "cat", "dog", "ant"]), unique=True, min_size=1))
def test_names_in_an_order_in_which_no_label_means_two_classes(names):
    ordered = unambiguous(names)
    assert sorted(ordered) == sorted(names)
    reader = LabelReader("cls", "", tuple(ordered), named=True)
    assert [reader.label(name.encode(), "x") for name in ordered] == list(range(len(names)))
    if not any(name.isdecimal() for name in names):
        assert ordered == names


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", r"0000\.json is not JSON"),
        (b'{"width": 3}', "has no key 'label'; it has: width. Set label_key to the key of the label"),
        (b"[1]", "has no key 'label'; it has: a list"),
        (b'{"label": true}', "should be a whole number or a class name, but is True"),
        (b'{"label": [1, 2]}', r"but is \[1, 2\]"),
        (b'{"label": -1}', "has the label -1"),
        (b'{"label": "dgo"}', "should be a whole number or a class name, but is 'dgo'; did you mean 'dog'"),
    ],
)
def test_json_without_a_label(tmp_path, content, said):
    shard(tmp_path / "one.tar", [{"png": png(0), "json": content}])
    with pytest.raises(DatasetError, match=said):
        dataset("", urls=str(tmp_path / "one.tar"), label="json", num_classes=None, class_names=NAMES).open("train").read()


def test_an_empty_range_is_an_error():
    assert expanded("plain.tar") == ["plain.tar"]
    with pytest.raises(DatasetError, match=r"\{5\.\.3\}"):
        expanded("a{5..3}")


@pytest.mark.parametrize("classes", [{"num_classes": None}, {"class_names": ("a",)}])
def test_classes_are_told_once(folder, classes):
    with pytest.raises(ValidationError, match="either class_names or num_classes"):
        dataset(folder, **classes)


def test_names_of_classes(folder):
    assert dataset(folder, num_classes=None, class_names=tuple("abcde")).info().class_names == tuple("abcde")
    assert dataset(folder).info().class_names == tuple("01234")


def test_the_fingerprint_follows_the_shards(folder, tmp_path):
    for index in range(3):
        (tmp_path / f"train-{index:03}.tar").write_bytes((folder / f"train-{index:03}.tar").read_bytes())
    before = dataset(tmp_path).identity()
    assert dataset(tmp_path, workers=3).identity() == before
    shard(tmp_path / "train-001.tar", [])
    assert dataset(tmp_path).identity() != before
    assert len(dataset(tmp_path).open("train")) == 23


def test_shards_of_both_splits_are_told(folder):
    with pytest.warns(RarkitWarning, match=r"1 of 2 test shards are training shards, too \(.*train-001\.tar\), so what is"):
        dataset(folder, test_urls=f"{folder}/train-{{001..001}}.tar::{folder}/test.tar").identity()


def test_without_the_library(folder):
    """Plans can be made; what is missing is said with its cure."""
    code = f"""
import sys
sys.modules["webdataset"] = None
from unittest.mock import patch
from rarkit.datasets import webdataset
from rarkit.errors import DatasetError
part = webdataset.WebDataset(urls={str(folder / "train-000.tar")!r}, num_classes=5)
part.identity(), part.info()
with patch.object(webdataset, "find_spec", lambda name: None):
    assert "rarkit[webdataset]" in part.capability("cpu", "float32")
    try:
        part.open("train")
    except DatasetError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip().endswith('pip install "rarkit[webdataset]"')
