"""Finished runs stand on their own: without their data, from any folder, and after project and store were moved."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

import rarkit
from rarkit.cache.token_lines import export_tokens, import_tokens
from rarkit.errors import IncompleteError, RecipeError, StoreError, UserError, WeightsError
from rarkit.files.weights import checksum
from rarkit.inference.export import export_model
from rarkit.inference.to_transformers.export import export_transformers
from rarkit.models import load_rar
from rarkit.pipeline.receipt import open_run

RECIPE = """
title = "Moved"
[dataset]
name = "image_folder"
path = "../data"
size = 4
[tokenizer]
name = "patch_kmeans"
patch = 2
codes = 5
iterations = 2
[model]
hidden_size = 8
depth = 1
num_heads = 2
[train]
steps = 2
batch_size = 4
precision = "float32"
[sample]
per_class = 2
"""
WEIGHTS = """
extends = "moved.toml"
unset = ["train"]
[model]
weights = "../weights/model.safetensors"
"""
TOKENS = """
extends = "moved.toml"
[train]
tokens = "../tokens"
"""


def sampled(folder, **options):
    drawing = rarkit.sample(folder, per_class=2, device="cpu", quiet=True, **options)
    return drawing.class_names, drawing.images_NHWC


def assert_same(first, second):
    assert first[0] == second[0] == ("cat", "dog")
    np.testing.assert_array_equal(first[1], second[1])


def run(recipe):
    return rarkit.run(rarkit.load_recipe(f"recipes/{recipe}.toml"), "stores/store", device="cpu", quiet=True).folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with recipes, data and a store, which everything in it names by relative paths."""
    random, project = np.random.default_rng(0), tmp_path / "project"
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (project / f"data/{split}/{name}").mkdir(parents=True)
            for number in range(8):
                pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(project / f"data/{split}/{name}/{number}.png")
    (project / "recipes").mkdir()
    for name, text in (("moved", RECIPE), ("weights", WEIGHTS), ("tokens", TOKENS)):
        (project / f"recipes/{name}.toml").write_text(text)
    monkeypatch.chdir(project)
    return project


def test_without_data_from_anywhere_and_moved(project, tmp_path, monkeypatch):
    run("moved")
    here, exported = sampled("runs/moved"), export_model("runs/moved")
    weights = (project / exported).read_bytes()
    shutil.rmtree(project / "data")
    shutil.rmtree(project / "recipes")
    monkeypatch.chdir("/")
    assert_same(sampled(project / "runs/moved"), here)
    moved = project.rename(tmp_path / "elsewhere")
    assert_same(sampled(moved / "runs/moved"), here)
    with open(export_model(moved / "runs/moved", tmp_path / "again.safetensors"), "rb") as file:
        assert file.read() == weights
    (moved / "stores/store").rename(tmp_path / "warehouse")
    with pytest.raises(IncompleteError, match=r"is not in the store .*name it with --store") as refused:
        sampled(moved / "runs/moved")
    assert "--force" not in str(refused.value)
    assert_same(sampled(moved / "runs/moved", store=str(tmp_path / "warehouse")), here)
    with open(export_model(moved / "runs/moved", store=str(tmp_path / "warehouse")), "rb") as file:
        assert file.read() == weights
    with pytest.raises(StoreError, match="there is no store"):
        sampled(moved / "runs/moved", store=str(tmp_path / "nowhere"))


def test_imported_tokens_are_not_needed_again(project, tmp_path, monkeypatch):
    run("moved")
    tokenized = next(project.glob("stores/store/tokenize/*"))
    export_tokens(str(tokenized), "lines.jsonl")
    import_tokens("lines.jsonl", "tokens", grid=(2, 2), codebook_size=5, num_classes=2)
    here = sampled(run("tokens"))
    shutil.rmtree(project / "tokens")
    moved = project.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert_same(sampled(moved / "runs/tokens"), here)


def test_weights_that_a_run_needs_are_found_or_named(project, tmp_path, monkeypatch):
    run("moved")
    export_model("runs/moved", "weights/model.safetensors")
    here = sampled(run("weights"))
    monkeypatch.chdir("/")
    assert_same(sampled(project / "runs/weights"), here)
    moved = project.rename(tmp_path / "elsewhere")
    assert_same(sampled(moved / "runs/weights"), here)
    weights = moved / "weights/model.safetensors"
    other = bytearray(weights.read_bytes())
    other[-1] ^= 1
    weights.write_bytes(other)
    for use in (sampled, lambda run: export_transformers(run, tmp_path / "exported")):
        with pytest.raises(WeightsError, match=r"are not those that the run .*runs/weights used: .* SHA-256 [0-9a-f]{64}"):
            use(moved / "runs/weights")
    weights.unlink()
    with pytest.raises(
        WeightsError, match=r"the weights of \[model\] are missing: there is no file .*project/weights/model\.safetensors"
    ):
        sampled(moved / "runs/weights")
    with pytest.raises(WeightsError, match="trained no model: its recipe samples from"):
        export_model(moved / "runs/weights")


def test_what_is_no_run_is_named(project):
    for use in (sampled, export_model):
        with pytest.raises(
            RecipeError, match=r"recipes/moved\.toml is a recipe, not a run\. Run it .* name the folder it leaves: runs/moved"
        ):
            use("recipes/moved.toml")
        with pytest.raises(RecipeError, match="is a file, not the folder of a run"):
            use("data/train/cat/0.png")
    with pytest.raises(UserError, match=r"is a checkpoint, which needs no store: leave out --store there"):
        sampled("rar_b.bin", store="there")


def test_a_run_is_its_model_and_not_an_old_export(project):
    """The recipe was trained anew, and the file in the folder is of the training before."""
    run("moved")
    old = load_rar(export_model("runs/moved"))
    rarkit.run(rarkit.load_recipe("recipes/moved.toml", ["train.steps=3"]), "stores/store", device="cpu", quiet=True, name="again")
    shutil.copy("runs/moved/model.safetensors", "runs/again/model.safetensors")
    trained = load(open_run("runs/again").output("train").read_file("model.safetensors"))
    for name, weight in load_rar(project / "runs/again").state_dict().items():
        assert torch.equal(weight, trained[name]), name
    new = load_rar("runs/again", dtype=torch.bfloat16)
    assert any(not torch.equal(weight.bfloat16(), new.state_dict()[name]) for name, weight in old.state_dict().items())
    # Where a path stands for a file, no folder of a run does.
    with pytest.raises(WeightsError, match=r"runs/again is the folder of a run, .* Write one with rarkit export, and name that"):
        checksum("runs/again")
    model = next(project.glob("stores/store/train/*/files/model.safetensors"))
    model.write_bytes(bytes(len(model.read_bytes())))
    damaged = "moved" if open_run("runs/moved").outputs["train"].path == str(model.parents[1]) else "again"
    with pytest.raises(IncompleteError, match=r"file 'model\.safetensors' is not what was written"):
        load_rar(f"runs/{damaged}")
    shutil.rmtree(project / "stores")
    with pytest.raises(IncompleteError, match=r"the output of stage 'train' of runs/again is not in the store"):
        load_rar("runs/again")
