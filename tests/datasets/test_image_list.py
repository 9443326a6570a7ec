"""Lists of files and labels: CSV and JSON lines, splits, labels, messages that name the line, and places that are not local."""

from __future__ import annotations

import csv
import io
import json
import os

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from rarkit.datasets import listed_files
from rarkit.datasets.image_list import ImageList
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.testing import DatasetSuite

SIZE = 6


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), shade, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def planted(root: str, names: list[str]) -> str:
    """Images, each of a shade of its own: 7 times its number."""
    filesystem, path = fsspec.core.url_to_fs(root)
    for number, name in enumerate(names):
        filesystem.makedirs(f"{path}/{name}".rsplit("/", 1)[0], exist_ok=True)
        filesystem.pipe_file(f"{path}/{name}", png(7 * number))
    return root


NAMES = [f"{folder}/{number}.png" for number in range(6) for folder in ("a", "b c")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = planted(str(tmp_path_factory.mktemp("listed")), NAMES)
    rows = [(name, name[0], "train" if number % 3 else "val") for number, name in enumerate(NAMES)]
    written(f"{root}/all.csv", ("file", "label", "part"), rows)
    lines = [json.dumps({"file": name, "label": number % 3, "note": None}) for number, name in enumerate(NAMES)]
    fsspec.filesystem("file").pipe_file(f"{root}/numbers.jsonl", "\n".join(lines).encode())
    return root


def written(place: str, header, rows, **dialect) -> str:
    with fsspec.open(place, "w", newline="", encoding=dialect.pop("encoding", "utf-8")) as file:
        csv.writer(file, **dialect).writerows([header, *rows])
    return place


def read(part: ImageList, split="train") -> list[tuple[int, int]]:
    """Number and label of each image."""
    block = part.open(split).read()
    return [(int(image[0, 0, 0]) // 7, int(label)) for image, label in zip(block.images_NHWC, block.labels_N, strict=True)]


def made(path: str, **more) -> ImageList:
    return ImageList(path=path, size=SIZE, workers=0, **more)


class TestImageList(DatasetSuite):
    @pytest.fixture(params=["csv", "jsonl"])
    def part(self, request, folder):
        return made(f"{folder}/all.csv") if request.param == "csv" else made(f"{folder}/numbers.jsonl", test="")


def test_images_and_labels_are_those_of_the_list_in_its_order(folder):
    part = made(f"{folder}/all.csv", split_column="part")
    assert part.info().class_names == ("a", "b")
    assert read(part) == [(number, number % 2) for number in range(12) if number % 3]
    assert read(part, "test") == [(number, number % 2) for number in range(12) if number % 3 == 0]
    numbers = made(f"{folder}/numbers.jsonl", test="")
    assert numbers.info().class_names == ("0", "1", "2")
    assert read(numbers) == [(number, number % 3) for number in range(12)]
    assert (numbers.count("train"), numbers.splits()) == (12, ("train",))
    plain = made(f"{folder}/all.csv", label_column="", test="")
    assert plain.info().class_names == ("images",)
    assert read(plain) == [(number, 0) for number in range(12)]


@given(
    st.lists(
        st.tuples(st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029\x85/"), min_size=1)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_labels_survive_any_dialect(folder, labels, separator, encoding, end):
    labels = [f"x {label}".strip() for (label,) in labels]
    place = written(
        f"{folder}/dialect.tsv",
        ("remark", "file", "label"),
        [("several\nlines; or, more", NAMES[number], label) for number, label in enumerate(labels)],
        delimiter=separator,
        encoding=encoding,
        lineterminator=end,
    )
    part = made(place, test="")
    assert [part.classes()[label] for _, label in read(part)] == labels
    assert list(part.classes()) == sorted(set(labels))


def test_a_fraction_of_each_class_is_held_out(folder):
    part = made(f"{folder}/all.csv", test_fraction=0.34)
    train, test = read(part), read(part, "test")
    assert sorted([*train, *test]) == [(number, number % 2) for number in range(12)]
    assert (train, test) == (sorted(train), sorted(test))
    assert sorted(label for _, label in test) == [0, 0, 1, 1]
    assert test != read(made(f"{folder}/all.csv", test_fraction=0.34, split_seed=1), "test")


def test_two_lists_and_files_in_another_folder(folder, tmp_path):
    train = written(str(tmp_path / "train.csv"), ("file", "label"), [(f"{folder}/a/0.png", "x"), ("b c/0.png", "y")])
    test = written(str(tmp_path / "val.csv"), ("file", "label"), [("./a/../a/1.png", "y")])
    part = made(train, test_path=test, root=folder)
    assert (read(part), read(part, "test")) == ([(0, 0), (1, 1)], [(2, 1)])
    assert made(train, test_path=test, root=f"{folder}/").content() == part.content()


def test_numbers_are_numbers_only_if_all_are(folder, tmp_path):
    def classes(*labels, **more):
        rows = list(zip(NAMES, labels, strict=False))
        return made(written(str(tmp_path / "a.csv"), ("file", "label"), rows), root=folder, test="", **more).classes()

    assert classes(3, 3, 0, 1, 2) == ("0", "1", "2", "3")
    assert classes("03", "10") == ("03", "10")
    assert classes("3", "cat") == ("3", "cat")
    assert classes("1", "0", class_names=("cat", "dog")) == ("cat", "dog")
    with pytest.warns(RarkitWarning, match=r"classes without training images: 2 of 3 \(0, 1\)"):
        assert classes("2") == ("0", "1", "2")
    part = made(str(tmp_path / "a.csv"), root=folder, test="", class_names=("2", "x"))
    with pytest.warns(RarkitWarning, match=r"classes without training images: 1 of 2 \(x\)"):
        assert read(part) == [(0, 0)]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([("a/0.png", "")], {}, "line 2: its label is empty. Correct"),
        (
            [("a/0.png", "x"), ("a/1.png", ""), ("a/2.png", "")],
            {},
            "line 3: its label is empty, as are those of 1 more of 3 rows. Fill",
        ),
        ([("a/0.png",)], {}, "line 2: it has 1 values, but the header has 2"),
        ([("a/0.png", "x"), ("a/9.png", "x"), ("a/8.png", "x")], {}, r"line 3: there is no file a/9.png in .*\(and 1 more\)"),
        ([("a/0.png", "x"), ("./a/0.png", "y")], {}, "line 3: ./a/0.png is listed in line 2 too"),
        ([("../x.png", "x")], {}, r"line 2: \.\./x.png does not lie in .*Set root"),
        ([("/x.png", "x")], {}, "line 2: /x.png does not lie in"),
        ([("s3://b/x.png", "x")], {}, "line 2: s3://b/x.png does not lie in"),
        ([("a/0.png", "4294967296")], {"class_names": ("x",)}, "line 2: '4294967296' is none of the 1 classes of class_names"),
        ([("a/0.png", "9999999")], {}, "has the label 9999999"),
        ([("a/0.png", "x")], {"label_column": "lable"}, "no column 'lable'.*perhaps 'label', or to \"\" for a single class"),
        ([("a/0.png", "x")], {"file_column": "path"}, "no column 'path'.*there are: file, label"),
        ([("a/0.png", "x")], {"split_column": "label"}, "no label is 'train'; there are x"),
        ([("a/0.png", "train")], {"split_column": "label"}, "no label is 'test'.*set test = \"\""),
        ([("a/0.png", "x")], {"test": None}, "no class in .* has two images"),
        ([("a/0.png", "x" * 2**18)], {}, "line 2: field larger than field limit"),
        ([["x"] * 2**19], {}, "a row has more than 1,048,576 characters"),
        ([], {}, "lists no files"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(folder, rows, settings, message):
    place = written(f"{folder}/wrong.csv", ("file", "label"), rows)
    with pytest.raises(DatasetError, match=message):
        made(place, **{"test": ""} | settings).content() if "split_column" not in settings else made(place, **settings).content()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"file": "a/0.png"}', "line 2: it has no 'label'. Set label_column to one that is there.*there are: file"),
        (b'{"file": "a/0.png", "label": true}', "line 2: its label is 'True', which is no text and no whole number"),
        (b'{"file": "a/0.png", "label": 1.5}', "line 2: its label is '1.5'"),
        (b'["a/0.png", 1]', "line 2: .*each line should be a table"),
        (b'{"file": "a/0.png", "label": ' + b"9" * 5000 + b"}", "line 2"),
        (b"[" * 10**6, "line 2"),
        (b"\xff", "is no text in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(folder, line, message):
    with fsspec.open(f"{folder}/wrong.jsonl", "wb") as file:
        file.write(b"\n" + line)
    with pytest.raises(DatasetError, match=message):
        made(f"{folder}/wrong.jsonl", test="").content()


def test_no_file_is_in_both_splits_unless_two_lists_say_so(folder, tmp_path):
    rows = [(name, "x", part) for name, part in zip(("a/0.png", "a/1.png", "./a/0.png"), ("train", "train", "test"), strict=True)]
    place = written(str(tmp_path / "a.csv"), ("file", "label", "part"), rows)
    twice = written(str(tmp_path / "d.csv"), ("file", "label"), [("a/0.png", "x"), ("./a/0.png", "x")])
    for part in (made(place, root=folder, split_column="part"), made(twice, root=folder)):
        with pytest.raises(DatasetError, match=r"all test images are training images, too \(.*a/0\.png\)\. List each file once"):
            part.content()
    other = written(str(tmp_path / "b.csv"), ("file", "label"), [("a/1.png", "x"), ("a/2.png", "x")])
    train = written(str(tmp_path / "c.csv"), ("file", "label"), [("a/0.png", "x"), ("a/1.png", "x")])
    with pytest.warns(RarkitWarning, match=r"b\.csv: 1 of 2 test images are training images, too \(.*a/1\.png\), so what is"):
        made(train, test_path=other, root=folder).content()


def test_lists_that_are_none(folder):
    for name, content, message in (
        ("a.xlsx", b"PK\x03\x04", "should be a list of files"),
        ("b.csv", b"PK\x03\x04\xff\xfe" + bytes(600), "It is a zip archive"),
        ("c.csv", b'file,label\na/0.png,"x', "line 2: unexpected end of data"),
        ("d.csv", b"file,file\na,b\n", "2 columns 'file'"),
        ("e.csv", b"", "no column 'file'"),
    ):
        with fsspec.open(f"{folder}/{name}", "wb") as file:
            file.write(content)
        with pytest.raises(DatasetError, match=message):
            made(f"{folder}/{name}").info()
    with pytest.raises(DatasetError, match=r"there is no .*gone\.csv"):
        made(f"{folder}/gone.csv").info()
    with pytest.raises(ValidationError, match="set neither split_column nor test"):
        made("a.csv", test_path="b.csv", split_column="part")
    with pytest.raises(ValidationError, match="test is a value of split_column"):
        made("a.csv", test="val")


def test_images_of_other_splits_are_counted(folder):
    rows = [(name, "x", part) for name, part in zip(NAMES, ("train", "test", "val", "val"), strict=False)]
    place = written(f"{folder}/three.csv", ("file", "label", "part"), rows)
    part = made(place, split_column="part")
    with pytest.warns(RarkitWarning, match="passed over images of other splits: 2 of 'val'"):
        assert (read(part), read(part, "test")) == ([(0, 0)], [(1, 0)])


@pytest.mark.parametrize("few", [1, 1000])
def test_other_file_systems_give_the_same(folder, few, monkeypatch):
    monkeypatch.setattr(listed_files, "FEW", few)
    root = planted("memory://listed", NAMES)
    written(f"{root}/all.csv", ("file", "label"), [(f"memory://listed/{name}", name[0]) for name in NAMES])
    elsewhere, here = made(f"{root}/all.csv", test=""), made(f"{folder}/all.csv", test="")
    assert read(elsewhere) == read(here)
    assert elsewhere.content() == here.content()
    written(f"{root}/gone.csv", ("file", "label"), [*((name, "x") for name in NAMES), ("gone.png", "x")])
    with pytest.raises(DatasetError, match=r"line 14: there is no file gone.png in memory://listed. Correct the list, or set root"):
        made(f"{root}/gone.csv", test="").content()


def test_the_fingerprint_is_that_of_names_sizes_and_labels(folder, tmp_path):
    def identity(rows, **more):
        part = made(written(str(tmp_path / "b.csv"), ("file", "label"), rows), root=folder, test="", **more)
        part.info()
        return part.identity()

    rows = [(name, name[0]) for name in NAMES[:4]]
    first = identity(rows)
    assert first == identity([(name, f"{label}{label}") for name, label in rows])
    assert first != identity(rows[::-1])
    assert first != identity([*rows[:3], (rows[3][0], "a")])
    with pytest.warns(RarkitWarning, match=r"1 of 3 \(c\)"):
        assert first != identity(rows, class_names=("a", "b", "c"))


def test_files_behind_links_that_lead_out_are_counted(folder, tmp_path):
    os.symlink(folder, tmp_path / "away")
    place = written(str(tmp_path / "c.csv"), ("file", "label"), [("away/a/0.png", "x"), ("away/b c/0.png", "x")])
    part = made(place, test="")
    assert read(part) == [(0, 0), (1, 0)]
    assert sum(part.links_out().values()) == 2
