"""From images to a recipe that runs: what is found, what is chosen, and what odd places are answered."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rarkit import plan
from rarkit.datasets.shards import expanded
from rarkit.errors import UserError
from rarkit.proposal.budget import Budget
from rarkit.proposal.contact_sheet import write_sheet
from rarkit.proposal.data_choices import FEW
from rarkit.proposal.found_shards import pattern_of
from rarkit.proposal.model_choices import FEWEST_STEPS, MOST_PASSES
from rarkit.proposal.new_recipe import target_of, write_recipe
from rarkit.proposal.proposal import Proposer
from rarkit.proposal.tokenizer_choices import codes
from rarkit.recipe.load import load_recipe
from tests.proposal.small import clock, filled, picture, proposed, survey_of


@pytest.fixture
def pets(tmp_path):
    for name in ("cats", "dogs"):
        filled(tmp_path / "pets" / name, 15)
    return tmp_path / "pets"


def values(recipe, table):
    return recipe.proposal.as_recipe()[table]


def test_a_folder_becomes_a_recipe_that_plans(pets, tmp_path):
    recipe = proposed(pets, tmp_path / "pets.toml")
    write_recipe(recipe)
    loaded = load_recipe(tmp_path / "pets.toml")
    planned = plan(loaded, str(tmp_path / "store"))
    assert planned.obstacle is None
    assert planned.experiment.images.class_names == ("cats", "dogs")
    assert loaded.dataset.path == str(pets)
    assert 'path = "pets"' in recipe.text  # so that both can be moved
    assert recipe.survey.images == {"train": 24, "test": 6}
    assert loaded.dataset.splits() == ("train", "test")
    assert recipe.survey.classes == (("cats", 12), ("dogs", 12))
    written = loaded.model_dump(exclude_unset=True, mode="json")
    del written["dataset"]["path"]
    chosen = recipe.proposal.as_recipe()
    del chosen["dataset"]["path"]
    del written["model"]["name"]
    assert {key: written[key] for key in chosen} == json.loads(json.dumps(chosen))


def test_each_line_says_why(pets, tmp_path):
    recipe = proposed(pets, tmp_path / "pets.toml")
    assert [choice.key for choices in recipe.proposal.tables.values() for choice in choices if not choice.why] == []
    for above, line in pairwise(recipe.text.splitlines()):
        assert not line or line.startswith(("#", "[", "title", "seed")) or "#" in line or above.startswith("#")
        assert len(line) <= 132


def test_workers_see_the_same(pets, monkeypatch):
    one = proposed(pets).survey
    monkeypatch.setattr("rarkit.proposal.survey.usable_workers", lambda: 2)
    two = proposed(pets).survey
    assert [(look.name, look.width, look.label) for look in one.looks] == [
        (look.name, look.width, look.label) for look in two.looks
    ]
    assert (one.crops_NHWC == two.crops_NHWC).all()


def test_a_recipe_that_is_there_is_left_as_it_is(pets, tmp_path):
    recipe, place = proposed(pets, tmp_path / "pets.toml"), tmp_path / "pets.toml"
    place.write_text("mine")
    with pytest.raises(UserError, match=r"is there already, and is left as it is.*--force"):
        write_recipe(recipe)
    assert place.read_text() == "mine"
    write_recipe(recipe, force=True)
    assert place.read_text() == recipe.text


def test_what_is_odd_about_images_is_found_and_provided_for(tmp_path):
    folder = filled(tmp_path / "odd/a", 12)
    filled(tmp_path / "odd/b", 12, mode="L", width=90)
    (folder / "00.png").write_bytes(b"no image")
    light = Image.new("RGBA", (40, 40), (255, 255, 255, 0))
    light.paste((240, 250, 240, 255), (10, 10, 30, 30))
    light.save(folder / "01.png")
    frames = [picture(number) for number in range(3)]
    frames[0].save(folder / "02.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(folder / "03.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(5).save(folder / "04.jpg", exif=exif)
    picture(6).save(folder / "05.jpg", exif=b"Exif\0\0no tags", dpi=(72, 72))  # else Pillow tries them itself
    (folder / "notes.txt").write_text("words")
    recipe = proposed(tmp_path / "odd", tmp_path / "odd.toml")
    said = "\n".join(recipe.found())
    for words in ("cannot be read: ", "00.png", "transparent", "animated", "16 bits", "turned", "are grey", "notes.txt"):
        assert words in said
    dataset = values(recipe, "dataset")
    assert dataset["on_bad_image"] == "skip"
    assert dataset["background"] == [0, 0, 0]  # the light square would not be seen on white
    assert dataset["exif"] is True
    write_sheet(recipe.survey, recipe.proposal, str(tmp_path / "sheet.png"))
    assert min(Image.open(tmp_path / "sheet.png").size) > 2 * values(recipe, "dataset")["size"]


def test_dark_transparent_images_are_laid_on_white(tmp_path):
    folder = filled(tmp_path / "dark/a", 12)
    for number in range(12):
        image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
        image.paste((20 * number, 0, 0, 255), (10, 10, 30, 30))
        image.save(folder / f"{number:02}.png")
    assert values(proposed(tmp_path / "dark"), "dataset")["background"] == [255, 255, 255]


def test_one_class_is_sampled_without_guidance_and_not_evaluated(tmp_path):
    recipe = proposed(filled(tmp_path / "flat", 20), tmp_path / "flat.toml")
    assert values(recipe, "sample")["guidance"]["scale"] == 1.0
    assert "evaluate" not in recipe.proposal.tables
    assert "one class" in recipe.proposal.remarks[0]
    assert f"# {recipe.proposal.remarks[0][:40]}" in recipe.text


# Where images lie


def test_folders_of_splits_are_found_whatever_their_case(tmp_path):
    for split, count in (("Train", 12), ("Validation", 4), ("test", 3)):
        filled(tmp_path / "data" / split / "a", count)
        filled(tmp_path / "data" / split / "b", count)
    recipe = proposed(tmp_path / "data", tmp_path / "data.toml")
    assert (values(recipe, "dataset")["train"], values(recipe, "dataset")["test"]) == ("Train", "Validation")
    assert recipe.survey.images == {"train": 24, "test": 8}
    assert "Not used: test." in recipe.found()


@pytest.mark.parametrize("around", ["train", "all my pictures"])
def test_a_folder_around_all_images_is_seen_through(tmp_path, around):
    for name in "ab":
        filled(tmp_path / "data" / around / name, 12)
    recipe = proposed(tmp_path / "data")
    assert values(recipe, "dataset")["path"].endswith(around)
    assert recipe.survey.class_names == ("a", "b")


def test_an_archive_is_read_as_the_folder_in_it(pets, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(pets.rglob("*.png")):
            archive.write(path, path.relative_to(pets))
    (tmp_path / "recipes").mkdir()
    recipe = proposed(tmp_path / "pets.zip", tmp_path / "recipes/pets.toml")
    write_recipe(recipe)
    assert load_recipe(tmp_path / "recipes/pets.toml").dataset.info().class_names == ("cats", "dogs")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_list_is_read_for_its_columns(pets, tmp_path, ending):
    rows = [{"file_name": f"{name}/{number:02}.png", "category": name[0]} for name in ("cats", "dogs") for number in range(12)]
    separator = "\t" if ending == "tsv" else ","
    text = "\n".join([separator.join(rows[0]), *(separator.join(row.values()) for row in rows)])
    (pets / f"metadata.{ending}").write_text("\n".join(map(json.dumps, rows)) if ending == "jsonl" else text)
    for place in (pets, pets / f"metadata.{ending}"):
        recipe = proposed(place, tmp_path / "out.toml")
        assert values(recipe, "dataset")["file_column"] == "file_name"
        assert values(recipe, "dataset")["label_column"] == "category"
        assert recipe.survey.class_names == ("c", "d")
        write_recipe(recipe, force=True)
        assert load_recipe(tmp_path / "out.toml").dataset.info().class_names == ("c", "d")


def test_a_list_of_test_images_is_found_beside_that_of_training_images(pets, tmp_path):
    for split, numbers in (("train", range(10)), ("test", range(10, 15))):
        rows = "".join(f"{name}/{number:02}.png,{name}\n" for name in ("cats", "dogs") for number in numbers)
        (pets / f"{split}.csv").write_text(f"file,label\n{rows}")
    (pets / "another.csv").write_text("a,b\n1,2\n")
    recipe = proposed(pets, tmp_path / "out.toml")
    write_recipe(recipe)
    dataset = load_recipe(tmp_path / "out.toml").dataset
    assert recipe.survey.images == {"train": 20, "test": 10}
    assert (dataset.count("train"), dataset.count("test")) == (40, 10)  # few images, which are mirrored


def test_a_list_without_labels_is_no_list_of_test_images(pets, tmp_path):
    rows = "".join(f"{name}/{number:02}.png,{name}\n" for name in ("cats", "dogs") for number in range(10))
    (pets / "train.csv").write_text(f"file,label\n{rows}")
    (pets / "test.csv").write_text("file\ncats/10.png\n")
    recipe = proposed(pets, tmp_path / "out.toml")
    assert "Not used: test.csv, which lacks a column of the list of training images." in recipe.found()
    write_recipe(recipe)
    assert load_recipe(tmp_path / "out.toml").dataset.splits() == ("train", "test")


def test_a_table_of_something_else_leaves_the_folder_what_it_is(pets):
    (pets / "notes.csv").write_text("file,label\nnot-there.png,x\n")
    assert values(proposed(pets), "dataset")["name"] == "image_folder"


def shard(place: Path, label, count=30):
    with tarfile.open(place, "w") as archive:
        for number in range(count):
            image = io.BytesIO()
            picture(number).save(image, "PNG")
            for ending, data in (("png", image.getvalue()), *label(number)):
                member = tarfile.TarInfo(f"{number:04}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


LABELLED = {
    "numbers": (lambda number: [("cls", str(number % 3).encode())], ("0", "1", "2"), {"num_classes": 3}),
    "names that are numbers": (
        lambda number: [("cls", (b"10", b"2", b"0", b"x", b"1")[number % 5])],
        ("0", "1", "2", "10", "x"),
        {"class_names": ["0", "1", "2", "10", "x"]},
    ),
    "json": (
        lambda number: [("json", json.dumps({"category": ["cat", "dog"][number % 2], "width": 3}).encode())],
        ("cat", "dog"),
        {"label": "json", "label_key": "category", "class_names": ["cat", "dog"]},
    ),
}


@pytest.mark.parametrize(("label", "names", "expected"), LABELLED.values(), ids=LABELLED)
def test_shards_are_read_for_their_labels(tmp_path, label, names, expected):
    pytest.importorskip("webdataset")
    shard(tmp_path / "data.tar", label)
    recipe = proposed(tmp_path / "data.tar", tmp_path / "data.toml")
    write_recipe(recipe)
    assert load_recipe(tmp_path / "data.toml").dataset.info().class_names == names
    assert {key: values(recipe, "dataset").get(key) for key in expected} == expected
    assert dict(recipe.survey.classes)[names[0]] == 30 // len(names)


def test_of_many_shards_the_last_are_for_tests(tmp_path):
    pytest.importorskip("webdataset")
    for number in range(11):
        shard(tmp_path / f"s-{number:02}.tar", LABELLED["numbers"][0], 3)
    recipe = proposed(tmp_path, tmp_path / "out.toml")
    assert recipe.survey.images == {"train": 30, "test": 3}
    assert values(recipe, "dataset")["urls"].endswith("s-{00..09}.tar")
    write_recipe(recipe)
    assert load_recipe(tmp_path / "out.toml").dataset.splits() == ("train", "test")


def test_shards_in_the_order_of_their_classes_are_not_held_out(tmp_path):
    pytest.importorskip("webdataset")
    for number in range(10):
        shard(tmp_path / f"s-{number}.tar", lambda _, label=number // 5 + number // 9: [("cls", b"%d" % label)], 3)
    recipe = proposed(tmp_path, tmp_path / "out.toml")
    assert (recipe.survey.images, recipe.survey.class_names) == ({"train": 30, "test": 0}, ("0", "1", "2"))
    assert "No tar files are held out for tests: classes of the last ones (2) are in no others." in recipe.found()
    write_recipe(recipe)
    assert load_recipe(tmp_path / "out.toml").dataset.splits() == ("train",)


@pytest.mark.parametrize("names", [["a-1.tar", "a-20260101120000.tar"], ["a-1.tar", "b.tar"], ["a-1.tar", "b-2.tar"]])
def test_names_that_are_no_sequence_are_listed(names):
    assert pattern_of(names) == "{" + ",".join(names) + "}"


@given(st.lists(st.from_regex(r"[a-z]{0,3}[0-9]{1,3}[a-z]{0,2}\.tar", fullmatch=True), min_size=1, max_size=12, unique=True))
def test_a_pattern_stands_for_the_names_it_was_made_of(names):
    assert expanded(pattern_of(sorted(names))) == sorted(names)


def test_arrays_keep_their_size(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        f"{what}_{split}": generator.integers(0, high, shape, np.uint8)
        for split, count in (("train", 60), ("test", 20))
        for what, high, shape in (("x", 256, (count, 28, 28)), ("y", 10, (count,)))
    }
    np.savez(tmp_path / "digits.npz", **arrays)
    recipe = proposed(tmp_path / "digits.npz", tmp_path / "digits.toml")
    write_recipe(recipe)
    experiment = plan(load_recipe(tmp_path / "digits.toml"), str(tmp_path / "store")).experiment
    assert experiment.image_shape == (28, 28, 1)
    assert experiment.grid == (7, 7)
    assert recipe.survey.images == {"train": 60, "test": 20}


@pytest.mark.parametrize("name", ["new\nline", 'quo"te', "[table]", "# hash", "\x1b[2J", "back\\slash"])
def test_odd_names_stay_data(tmp_path, name):
    for label in (name, "b"):
        filled(tmp_path / name / label, 12)
    recipe = proposed(tmp_path / name, tmp_path / "out.toml")
    write_recipe(recipe)
    assert load_recipe(tmp_path / "out.toml").dataset.info().class_names == tuple(sorted((name, "b")))
    assert all(line.startswith(("#", "[", "title", "seed")) or " = " in line for line in recipe.text.splitlines() if line)


@pytest.mark.parametrize(
    ("place", "path", "name"),
    [
        ("photos/", None, "photos.toml"),
        ("a/b c.tar.gz", None, "b_c.toml"),
        ("https://host/x/pets.zip", None, "pets.toml"),
        ("zip://in::all.zip", None, "all.toml"),
        ("List.TSV", None, "List.toml"),
        ("photos", "mine.toml", "mine.toml"),
    ],
)
def test_a_recipe_is_called_after_its_images(place, path, name):
    assert str(target_of(place, path)) == name


# Places of which no recipe can be made


def broken_link(folder):
    filled(folder, 12)
    os.symlink("/nowhere/x.png", folder / "x.png")


def endless(folder):
    filled(folder / "a", 12)
    os.symlink(folder, folder / "a/up")


def damaged(folder):
    for number in range(12):
        (folder / f"{number}.jpg").write_bytes(b"nothing")


def same(folder):
    for number in range(12):
        Image.new("RGB", (32, 32), (9, 9, 9)).save(folder / f"{number}.png")


def captions(folder):
    shard(folder / "data.tar", lambda number: [("txt", b"a cat and %d dogs" % number)])


ODD = {
    "nothing": (lambda folder: folder.rmdir(), "there is no .*Name a folder of images"),
    "empty": (lambda folder: None, "data is empty. Name a folder"),
    "other files": (lambda folder: (folder / "a.txt").write_text("x"), "contains no images. It holds a.txt"),
    "hidden files": (lambda folder: (folder / ".a.txt").write_text("x"), "contains no images. It holds hidden files"),
    "one image": (lambda folder: filled(folder, 1), "has 1 image, and a model learns from many"),
    "one image each": (lambda folder: [filled(folder / name, 1) for name in "ab"], "has 2 images, and a model"),
    "all damaged": (damaged, "none of the 12 images .* can be read. The first: .*cannot be read as an image"),
    "all alike": (same, "all of one colour"),
    "broken link": (broken_link, "there is no .*x.png"),
    "endless link": (endless, "it has no end"),
    "bare shards": (lambda folder: shard(folder / "data.tar", lambda number: []), "images without labels.*unpack"),
    "bad json": (lambda folder: shard(folder / "data.tar", lambda number: [("json", b"[")]), "no JSON object"),
    "captions": (captions, "30 different texts.*captions"),
}


@pytest.mark.parametrize(("make", "message"), ODD.values(), ids=ODD)
def test_a_folder_that_cannot_be_used_says_why(tmp_path, make, message):
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError, match=f"(?s){message}"):
        proposed(folder)


FILES = {
    "recipe.toml": (b"title = 'x'", "is a recipe already"),
    "a.png": (b"", "is a single image"),
    "a.txt": (b"hello", "no known form of images: it is text that begins with 'hello'"),
    "a.csv": (b"a,b\n1,2\n", "no column of file names: its first row has a, b"),
    "gone.csv": (b"file,label\nnot-there.png,a\n", "gone.csv, line 2: there is no file not-there.png. Names are relative.*root"),
    "bare.csv": (b"a.png,x\nb.png,y\n", "bare.csv has no column of file names: .*a.png, x. Give it a first line: file,label$"),
    "other.csv": (b"where,kind\na.png,x\n", "file_column = 'where' and label_column = 'kind'"),
    "some.csv": (b"file,label\na.csv,x\na.csv,\na.csv,\n", "line 3: its label is empty, as are those of 1 more of 3 rows"),
    "a.arrow": (b"x", "is an Arrow table. Write it as Parquet"),
    "a.jsonl": (b"[1]\n", "no names of columns"),
    "b.jsonl": (b"{\n", "no names of columns"),
    "b.csv": (b'"\x00"\n"' + b"x" * 200_000, "no names of columns|no column of file names"),
    "a.npz": (b"no zip", "a.npz"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_says_why(tmp_path, name):
    data, message = FILES[name]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError, match=message):
        proposed(tmp_path / name)


def test_what_another_plugin_reads_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("rarkit.proposal.places.parts", lambda: type("None", (), {"datasets": {}}))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for place in (tmp_path / "a.parquet", "owner/name"):
        with pytest.raises(UserError, match=r"pip install \./plugins/rarkit-hf, in a checkout"):
            proposed(place)


# What fits


@settings(max_examples=25)
@given(
    count=st.integers(20, 10**6),
    side=st.integers(1, 2000),
    classes=st.integers(1, 5),
    minutes=st.floats(0.5, 600),
    learned=st.booleans(),
)
def test_a_training_keeps_to_its_time_and_its_images(count, side, classes, minutes, learned):
    survey, budget = survey_of(count, side, classes), Budget(minutes, "cpu", learned)
    proposal = Proposer(survey, budget, clock, lambda *_: 0.2).propose("x")
    recipe = proposal.as_recipe()
    steps, batch = recipe["train"]["steps"], recipe["train"]["batch_size"]
    assert proposal.seconds["train"] <= max(budget.for_training, FEWEST_STEPS * proposal.seconds["train"] / steps) * (1 + 1e-9)
    views = 2 if recipe["dataset"].get("flip") else 1
    assert steps * batch <= max(FEWEST_STEPS * batch, MOST_PASSES * views * count)
    assert (views == 2) == (count * 6 // 5 < FEW)
    assert proposal.size.height <= max(8, 1.1 * side)
    assert proposal.size.height % proposal.size.patch == 0
    assert recipe["dataset"]["size"] == proposal.size.height
    assert ("evaluate" in recipe) == (classes > 1 and count // classes >= 10)


def test_there_are_no_more_codes_than_patches():
    for count in (20, 300, 40_000):
        survey = survey_of(count, 200, 2)
        size = Proposer(survey, Budget(10, "cpu", False), clock, lambda *_: 0.2).propose("x").size
        assert 2 <= codes(survey, size, count) <= count * size.tokens / 10


def test_more_time_makes_larger_models():
    survey = survey_of(50_000, 300, 10)
    weights = []
    for minutes in (1, 10, 100, 1000):
        model = Proposer(survey, Budget(minutes, "cpu", True), clock, lambda *_: 0.2).propose("x").as_recipe()["model"]
        weights.append(model["hidden_size"] ** 2 * model["depth"])
    assert weights == sorted(weights)
    assert weights[0] < weights[-1]


@pytest.mark.parametrize(
    ("minutes", "device", "learned", "start"),
    [
        (10, "cpu", True, "kmeans"),
        (100, "cpu", True, "kmeans"),
        (240, "cpu", True, "random"),
        (240, "slow cpu", True, "kmeans"),
        (60, "cuda", True, "random"),
        (240, "cpu", False, None),
    ],
)
def test_a_tokenizer_starts_as_kmeans_unless_there_are_hours(minutes, device, learned, start):
    device, a_step = device.removeprefix("slow "), 2.0 if "slow" in device else 0.1
    proposal = Proposer(survey_of(50_000, 300, 10), Budget(minutes, device, learned), clock, lambda *_: a_step).propose("x")
    tokenizer = proposal.as_recipe()["tokenizer"]
    assert tokenizer["name"] == ("vq" if learned else "patch_kmeans")
    assert tokenizer.get("start") == start
    budget = Budget(minutes, device, learned)
    assert proposal.seconds["learn the tokenizer"] <= budget.for_tokenizer
    if learned:
        assert 0.7 * budget.for_tokenizer <= tokenizer["steps"] * a_step
