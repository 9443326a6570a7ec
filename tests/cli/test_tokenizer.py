"""``rarkit export --tokenizer`` and ``rarkit tokenizer``: what they write and print."""

from __future__ import annotations

import json
import re

from PIL import Image

from rarkit.inference.tokenizer_evaluation import evaluate_tokenizer
from rarkit.tokenizers.exported import Exported


def test_a_tokenizer_is_exported_alone(rarkit, small_finished, tmp_path):
    code, out, err = rarkit("export", small_finished.folder, "--tokenizer", "t.safetensors")
    assert (code, out, err) == (0, "t.safetensors\n", "")
    assert Exported(weights=str(tmp_path / "t.safetensors")).codebook_size() == 5
    for more, named in ((["--bundle", "b"], "--bundle"), (["-o", "x"], "--output"), (["--merged"], "--merged"), (["F"], "FOLDER")):
        code, _, err = rarkit("export", small_finished.folder, "--tokenizer", "u.safetensors", *more)
        assert (code, f"leave out {named}" in err) == (2, True), err
    code, _, err = rarkit("export", small_finished.folder, "--tokenizer", "t.safetensors")
    assert (code, "already" in err) == (2, True)


def test_numbers_are_printed_with_what_was_measured(rarkit, small_finished, tmp_path):
    options = ["-n", 40, "--show", "shown.png", "--device", "cpu", "-q"]
    code, out, err = rarkit("tokenizer", "evaluate", small_finished.folder, *options)
    assert (code, err) == (0, "")
    measured = evaluate_tokenizer(small_finished, images=40, device="cpu", quiet=True)
    first, *_ = out.splitlines()
    assert first == "images: 40 of the split 'test', drawn from 300, 4×4×1"
    assert '[dataset] name = "generated", height = 4' in out
    assert '[tokenizer] name = "patch_kmeans", patch = 2, codes = 5' in out
    assert "2×2 tokens of 5 codes: 9.288 bits per image, 0.5805 per pixel" in out
    for metric in measured.metrics:
        assert re.search(rf"^{metric.name}\b", out, re.MULTILINE), metric.name
    assert out.endswith("shown.png\n")
    with Image.open(tmp_path / "shown.png") as picture:
        assert picture.width > picture.height > 100


def test_numbers_are_printed_as_json(rarkit, small_finished):
    arguments = ["tokenizer", "evaluate", small_finished.folder, "--images", 40, "--split", "train", "--json", "--quiet"]
    code, out, err = rarkit(*arguments, "--set", "dataset.seed=3", "--device", "cpu")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    measured = evaluate_tokenizer(small_finished, split="train", images=40, overrides=["dataset.seed=3"], device="cpu", quiet=True)
    assert {metric["name"]: metric["value"] for metric in printed["metrics"]} == {one.name: one.value for one in measured.metrics}
    assert (printed["images"], printed["images_in_all"], printed["split"], printed["grid"]) == (40, 600, "train", [2, 2])
    assert (printed["dataset"]["seed"], printed["lacking"]) == (3, [])


def test_a_recipe_is_looked_for_where_it_is_run(rarkit, small_recipe, tmp_path):
    """What a run says that stopped after ``fit``, and the commands that it names."""
    code, _, err = rarkit("tokenizer", "evaluate", small_recipe)
    assert (code, "is not in the store rarkit-store. Train it: rarkit run" in err) == (2, True)
    code, out, _ = rarkit("run", small_recipe, "--until", "fit", "--device", "cpu", "-q")
    named = [line.split()[1:] for line in out.splitlines() if line.startswith("  rarkit ")]
    assert [command[0] for command in named] == ["tokenizer", "export", "run"]
    assert {path.name for path in (tmp_path / "runs/small").iterdir()} == {"report.html", "receipt.json"}
    assert "Reconstructions" in (tmp_path / "runs/small/report.html").read_text()
    assert rarkit(*named[0], "-n", 20)[0] == rarkit(*named[1])[0] == 0
    code, out, _ = rarkit("tokenizer", "evaluate", small_recipe, "-n", 20, "-q", "--store", "rarkit-store")
    assert (code, out.splitlines()[0]) == (0, "images: 20 of the split 'test', drawn from 300, 4×4×1")
    assert (tmp_path / "reconstructions.png").exists()
    assert Exported(weights=named[1][-1]).codebook_size() == 5


def test_a_folder_is_measured_by_its_recipe(rarkit, small_finished, tmp_path):
    (tmp_path / "my images").mkdir()
    code, out, err = rarkit("tokenizer", "evaluate", small_finished.folder, "--data", "my images")
    assert (code, out) == (2, "")
    assert "my images is a folder. To measure its images, give a recipe of them, as this writes: rarkit new 'my images'" in err


def test_a_picture_that_cannot_be_written_is_refused_first(rarkit, small_finished):
    for place, message in (("shown.jpg", "it has to end in .png"), ("nowhere/", "it has to end in .png")):
        code, out, err = rarkit("tokenizer", "evaluate", small_finished.folder, "--show", place)
        assert (code, out, message in err) == (2, "", True), err
