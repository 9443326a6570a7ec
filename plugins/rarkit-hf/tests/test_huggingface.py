"""Parquet as the datasets library writes it: images, labels and splits are those of the library; what is wrong is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pytest
from animals import made, png, read, rows, written
from datasets import Features, Image, Value
from datasets.table import embed_table_storage
from PIL import Image as Pillow
from pyarrow import parquet
from pydantic import ValidationError

import rarkit
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.testing import DatasetSuite
from rarkit_hf import HuggingFace


class TestHuggingFace(DatasetSuite):
    @pytest.fixture(params=["folder", "file", "augmented"])
    def part(self, request, folder):
        if request.param == "file":
            return made(f"{folder}/data/train-00000-of-00002.parquet")
        return made(folder, **({"random_crops": 2, "crop_scale": (0.5, 1.0), "flip": True} if request.param == "augmented" else {}))


def test_the_installed_plugin_is_found():
    parts = rarkit.parts(strict=True).datasets
    assert parts["huggingface"] is HuggingFace
    assert parts.source("huggingface").distribution == "rarkit-hf"


def test_rows_are_those_that_the_library_reads(folder, tmp_path):
    part = made(folder)
    assert part.info().class_names == ("cat", "dog", "ant")
    for split, name in (("train", "train"), ("test", "validation")):
        theirs = datasets.load_dataset(folder, split=name, cache_dir=str(tmp_path))
        assert read(part, split) == [(row["image"].getpixel((0, 0))[0], row["label"]) for row in theirs]
        assert part.count(split) == len(theirs)


def test_chosen_rows_read_their_row_groups_alone(folder, monkeypatch):
    opened = []
    plain = parquet.ParquetFile.iter_batches

    def watched(self, *args, **options):
        opened.extend(options["row_groups"])
        assert options["columns"] == ["image"]
        return plain(self, *args, **options)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", watched)
    reader = made(folder).open("train")
    blocks = list(reader.chosen(np.array([1, 2, 17, 29]), 3))
    assert [image[0, 0, 0] for block in blocks for image in block.images_NHWC] == [1, 2, 17, 29]
    assert opened == [0, 4, 2]


def test_a_part_of_each_class_is_held_out_of_files_without_a_test_split(folder):
    part = made(f"{folder}/data/train-*.parquet", test_fraction=0.2)
    train, test = read(part), read(part, "test")
    assert sorted([*train, *test]) == [(number, number % 3) for number in range(30)]
    assert (train, test) == (sorted(train), sorted(test))
    assert sorted(label for _, label in test) == [0, 0, 1, 1, 2, 2]
    assert part.source("test").labels().tolist() == [label for _, label in test]
    assert made(f"{folder}/data/train-*.parquet", test="").count("train") == 30
    other = made(f"{folder}/data/train-*.parquet", test_path=f"{folder}/data/validation-00000-of-00001.parquet")
    assert read(other, "test") == read(made(folder), "test")
    assert len({str(each.identity()) for each in (part, other, made(f"{folder}/data/train-*.parquet", split_seed=1))}) == 3


def test_tables_that_others_wrote(tmp_path):
    place = written(tmp_path / "a.parquet", id=["x", "y", "z"], picture=[png(1), png(2), png(3)])
    part = made(place, test="")
    with pytest.warns(RarkitWarning, match="has no column of labels, so all images are one class; of its columns.*id"):
        assert part.info().class_names == ("images",)
    assert read(part) == [(1, 0), (2, 0), (3, 0)]
    pictures = [{"bytes": png(number)} for number in (1, 2)]
    assert read(made(written(tmp_path / "b.parquet", image=pictures, id=["x", "y"]), label="id", test="")) == [(1, 0), (2, 1)]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"label": ["a"]}, {}, "has no column of images. Its columns are: label"),
        ({"a": [b"1"], "b": [b"1"]}, {}, "several columns of images: a, b. Set image to one"),
        ({"a": [b"1"]}, {"image": "b"}, "no column 'b'; it has: a. Set image"),
        ({"a": [b"1"]}, {"label": "b"}, "no column 'b'; it has: a. Set label"),
        ({"a": [b"1"], "label": [1.5]}, {}, "label is double, but labels are names or whole numbers"),
        ({"a": [b"1"], "label": [[1]]}, {}, "label is list"),
        ({"a": [b"1", b"1"], "label": [0, -1]}, {}, "row 1 has the label -1.*not published: set test to another split"),
        ({"a": [b"1"], "label": [2**21]}, {}, "row 0 has the label 2097152"),
        ({"a": [b"1", b"1"], "label": ["x", None]}, {}, r"row 1 has no label \(1 in all have none\)"),
        ({"a": [b"1"], "label": ["x"]}, {"class_names": ("y",)}, "row 0 has the label 'x', which is none of the 1 classes"),
        ({"a": [b"1"], "label": [1]}, {"class_names": ("y",)}, "row 0 has the label 1, which is none of the 1 classes"),
        ({"a": [b"1"], "label": ["x"]}, {"test": None}, "no class in .* has two images"),
        ({"a": [b"1"], "label": ["x"]}, {"train": "all"}, "no split 'all'; it has: train"),
        ({"a": [b"1"], "label": ["x"]}, {"test": "eval"}, "no split 'eval'; it has: train. Set test"),
        ({"a": [b"none"], "label": ["x"]}, {}, "a.parquet, row 0 .* cannot be read as an image"),
        ({"a": [None], "label": ["x"]}, {"image": "a"}, "row 0 has no image"),
        ({"a": ["b.png"], "label": ["x"]}, {"image": "a"}, r"row 0 only names a file \(b.png\)"),
        ({"a": [{"bytes": None, "path": "/etc/passwd"}], "label": ["x"]}, {}, r"row 0 only names a file \(/etc/passwd\)"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, columns, settings, message):
    part = made(written(tmp_path / "a.parquet", **columns), **{"test": ""} | settings)
    with pytest.raises(DatasetError, match=message):
        part.open("train").read()


def test_images_that_a_table_only_names_are_put_into_it_as_the_message_says(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    features = Features({"image": Image(), "label": Value("string")})
    table = {"image": [str(tmp_path / f"{number}.png") for number in range(3)], "label": ["a", "b", "a"]}
    data, place = datasets.Dataset.from_dict(table, features), str(tmp_path / "a.parquet")
    data.to_parquet(place)
    with pytest.raises(DatasetError, match=r"only names a file .*0\.png") as refused:
        made(place, test="").open("train").read()
    cure = next(line for line in str(refused.value).split(": ") if line.startswith("data.")).partition("(FILE)")[0]
    names = {"data": data, "embed_table_storage": embed_table_storage}
    eval(f"{cure}(place)", names | {"place": place})
    assert read(made(place, test="")) == [(0, 0), (1, 1), (2, 0)]


def test_files_for_training_and_for_tests_are_different_ones(folder, tmp_path):
    shutil.copytree(f"{folder}/data", tmp_path / "data")
    alone = tmp_path / "alone"
    shutil.copytree(f"{folder}/data", alone / "data", ignore=shutil.ignore_patterns("validation*"))
    (tmp_path / "again.parquet").symlink_to("data/train-00000-of-00002.parquet")
    first, pattern = (f"{tmp_path}/data/train-{which}.parquet" for which in ("00000-of-00002", "*"))
    for part, cure in (
        (made(alone, test="train"), "Set test to other images"),
        (made(first, test_path=first), "Set test_path to other"),
        (made(pattern, test_path=first), "Set test_path"),
        (made(pattern, test_path=str(tmp_path / "again.parquet")), "Set test_path"),
    ):
        with pytest.raises(DatasetError, match=rf"all test files are training files, too \(.*\.parquet\)\. {cure}"):
            part.content()
    with pytest.warns(RarkitWarning, match=r"1 of 2 test files are training files, too \(.*train-00000.*\), so what is measured"):
        made(first, test_path=pattern).content()
    assert set(made(pattern).content()) == set(made(folder).content()) == {"train", "test"}


def test_long_names_that_repeat_take_no_memory(tmp_path):
    """As text, the labels would take 10 GB."""
    label = pa.DictionaryArray.from_arrays(np.zeros(10**6, dtype=np.int32), ["x" * 10**4])
    parquet.write_table(
        pa.table({"image": pa.nulls(10**6, pa.binary()), "label": label}), tmp_path / "a.parquet", store_schema=False
    )
    assert (tmp_path / "a.parquet").stat().st_size < 10**6
    assert made(tmp_path / "a.parquet", test="").info().class_names == ("x" * 10**4,)


def test_bad_images_are_skipped_if_asked(tmp_path):
    place = written(tmp_path / "a.parquet", image=[png(1), b"none", None, png(4), png(5)], label=["x", "y", "x", "y", "x"])
    part = made(place, on_bad_image="skip", test="")
    with pytest.warns(RarkitWarning, match="2 of 5 images are skipped"):
        assert read(part) == [(1, 0), (4, 1), (5, 0)]


def test_two_columns_of_classes_and_unused_splits(folder, tmp_path):
    both = rows(range(4), [0, 1, 2, 0]).add_column("fine", ["a", "b", "a", "b"]).class_encode_column("fine")
    both.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r'several columns of labels: label, fine\. Set label to one of them, or label = ""'):
        made(tmp_path / "a.parquet").info()
    assert made(tmp_path / "a.parquet", label="fine").info().class_names == ("a", "b")
    shutil.copytree(f"{folder}/data", tmp_path / "b/data")
    rows([7], [1]).to_parquet(tmp_path / "b/data/test-00000-of-00001.parquet")
    with pytest.warns(RarkitWarning, match="passed over the splits test"):
        assert len(read(made(tmp_path / "b"), "test")) == 6
    with pytest.warns(RarkitWarning, match="passed over the splits validation"):
        assert read(made(tmp_path / "b", test="test"), "test") == [(7, 1)]


def test_the_same_files_elsewhere_are_the_same(folder):
    memory = fsspec.filesystem("memory")
    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        memory.pipe_file(f"/animals/{name}.parquet", Path(f"{folder}/data/{name}.parquet").read_bytes())
    elsewhere, here = (made(f"{place}/train-*.parquet") for place in ("memory://animals", f"{folder}/data"))
    assert elsewhere.identity() == here.identity()
    assert read(elsewhere) == read(here)
    with pytest.raises(DatasetError, match="Name its files, as in memory://animals/"):
        made("memory://animals").info()


def test_places_that_are_none(folder, tmp_path):
    (tmp_path / "a.txt").write_text("none")
    (tmp_path / "b.parquet").write_text("none")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "empty").mkdir()
    Pillow.new("RGB", (4, 4)).save(tmp_path / "pictures/a.png")
    for place, message in (
        (tmp_path / "gone", "does not exist. Check the path"),
        (tmp_path / "a.txt", "is no Parquet file.*to_parquet"),
        (tmp_path / "b.parquet", "cannot be reached.*It should be Parquet"),
        (tmp_path / "gone.parquet", "there is no .*gone.parquet"),
        (tmp_path / "*.parq", "there is no file .*Check the pattern"),
        (tmp_path / "pictures", "files that are no Parquet.*folders of images are read by image_folder"),
        (tmp_path / "empty", "has no files of data"),
    ):
        with pytest.raises(DatasetError, match=message):
            made(place).info()
    with pytest.raises(DatasetError, match="test_path goes with a path that is a file or a pattern"):
        made(folder, test_path=f"{folder}/data/train-00000-of-00002.parquet").info()
    with pytest.raises(DatasetError, match="is not on the hub, which alone has revisions"):
        made(folder, revision="main").info()
    with pytest.raises(DatasetError, match="config and revision choose nothing"):
        made(f"{folder}/data/train-*.parquet", config="small").info()
    with pytest.raises(ValidationError):
        made(folder, test_fraction=1.0)


def test_a_config_that_must_be_chosen(tmp_path):
    for name in ("small", "large"):
        rows(range(4), [0, 1, 0, 1]).to_parquet(tmp_path / f"{name}/train.parquet")
    described = "\n".join(f"- config_name: {name}\n  data_files: {name}/*.parquet" for name in ("small", "large"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{described}\n---\n")
    with pytest.raises(DatasetError, match=r"\['small', 'large'\].*Set config to one of them"):
        made(tmp_path).info()
    assert made(tmp_path, config="small", test="").count("train") == 4
