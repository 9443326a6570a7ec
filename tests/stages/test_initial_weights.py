"""``train.init_from``: what it may name, that its content counts, and that plan and run say what is adapted."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from typer.testing import CliRunner

from rarkit import load_recipe, plan, run
from rarkit.cache.run_folders import MODEL_FILE
from rarkit.cli.app import app
from rarkit.errors import RecipeError, WeightsError
from rarkit.estimate.estimate import estimate
from rarkit.files.weight_files import local_copy
from rarkit.files.weights import read_tensors, write_tensors
from rarkit.inference.export import export_bundle
from rarkit.models.rar.checkpoints import save_rar
from rarkit.stages.initial_weights import output_named, start_from
from rarkit.stages.train import trained_model
from tests.conftest import SMALL

OTHERS = ["dataset.height=8", 'dataset.class_names=["stripes", "rings", "dots"]']
"""Overrides for a grid of 4 × 2 instead of 2 × 2, and other classes."""


@pytest.fixture(scope="module")
def trained(small_finished):
    """The weights of the finished run, by name."""
    stage = small_finished.plan["train"]
    view = stage.view
    model = trained_model(stage.output, view.model, view.config, view.attention, "cpu")
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def recipe_from(place, *overrides):
    return load_recipe(SMALL, [f"train.init_from={place}", "train.steps=2", *overrides])


def started(planned):
    """The new model of a plan with the weights that it starts from, and what was said."""
    view = planned["train"].view
    model = view.model.create(view.config, view.attention.build(), 0)
    told = start_from(view.initial_weights, model, view.model)
    return model.state_dict(), told


def checkpoint(small_finished, folder):
    """The run's model as a PyTorch file without any configuration."""
    stage = small_finished.plan["train"]
    model = trained_model(stage.output, stage.view.model, stage.view.config, stage.view.attention, "cpu")
    save_rar(model, folder / "model.bin")
    return folder / "model.bin"


def test_each_place_gives_the_weights_of_the_run(small_finished, trained, tmp_path, monkeypatch):
    output = small_finished.plan["train"].output
    shutil.copytree(small_finished.folder, tmp_path / "runs/earlier")
    monkeypatch.chdir(tmp_path)
    places = {
        "folder": (str(small_finished.folder), True),
        "name": ("earlier", True),
        "output": (output.path, None),
        "file": (f"{output.path}/files/{MODEL_FILE}", None),
        "checkpoint": (str(checkpoint(small_finished, tmp_path)), None),
        "bundle": (export_bundle(small_finished.folder, tmp_path / "bundle.safetensors"), True),
    }
    for name, (place, same) in places.items():
        planned = plan(load_recipe(SMALL, [f"train.init_from={place}"]), "memory://initial")
        assert planned["train"].action == "run", (name, planned["train"].obstacle)
        state, told = started(planned)
        assert told[0].startswith("starts from ")
        assert len(told) == (1 if same else 2), (name, told)
        assert all(torch.equal(state[key], value) for key, value in trained.items()), name


def test_the_content_counts_and_not_the_place(small_finished, tmp_path):
    output, place = small_finished.plan["train"].output, tmp_path / "copy.safetensors"
    shutil.copy(f"{output.path}/files/{MODEL_FILE}", place)
    shutil.copy(place, tmp_path / "other.safetensors")
    fingerprints = {
        name: plan(recipe_from(tmp_path / f"{name}.safetensors"), "memory://initial")["train"].fingerprint
        for name in ("copy", "other")
    }
    assert fingerprints["copy"] == fingerprints["other"]
    assert plan(recipe_from(output.path), "memory://initial")["train"].view.initial_weights.sha256
    tensors, metadata = read_tensors(place)
    write_tensors({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "other.safetensors", metadata)
    other = plan(recipe_from(tmp_path / "other.safetensors"), "memory://initial")["train"].fingerprint
    assert other not in (fingerprints["copy"], plan(load_recipe(SMALL, ["train.steps=2"]), "memory://initial")["train"].fingerprint)


def test_plan_and_run_say_what_is_adapted(small_finished, trained, tmp_path, capsys):
    recipe = recipe_from(small_finished.folder, *OTHERS)
    planned = plan(recipe, str(tmp_path / "store"))
    expected = (
        f"starts from {small_finished.folder}",
        "the 3 classes get new embeddings, because "
        f"{small_finished.folder} has {len(small_finished.plan.experiment.images.class_names):,} other classes",
        "positions are interpolated from a grid of 2 × 2 to 4 × 2 (bicubic)",
        "embeddings of steps are interpolated from 4 to 8 steps (linear)",
    )
    assert estimate(planned).initial_changes == expected
    state, told = started(planned)
    assert tuple(told) == expected
    assert torch.equal(state["blocks.0.mlp.fc1.weight"], trained["blocks.0.mlp.fc1.weight"])
    done = run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", until="train")
    said = " ".join(capsys.readouterr().err.split())
    assert all(" ".join(f"train: {change}".split()) in said for change in expected)
    assert done.plan["train"].output.begun().grid == (4, 2)
    again = plan(recipe, str(tmp_path / "store"))
    assert again["train"].action == "cached"
    assert estimate(again).initial_changes == ()


def test_the_command_says_it(small_finished, tmp_path):
    arguments = ["plan", SMALL, "--store", str(tmp_path / "store")]
    sets = [f"train.init_from={small_finished.folder}", *OTHERS]
    text = CliRunner().invoke(app, [*arguments, *(word for override in sets for word in ("--set", override))]).stdout
    assert f"reads {small_finished.folder} (train.init_from)" in text
    assert f"train starts from {small_finished.folder}" in text
    assert "train positions are interpolated from a grid of 2 × 2 to 4 × 2 (bicubic)" in text


def test_classes_of_other_names_make_another_training(small_finished):
    names = small_finished.plan.experiment.images.class_names
    others = [f"dataset.class_names={[f'new {name}' for name in names]}".replace("'", '"')]
    same, other = (plan(recipe_from(small_finished.folder, *overrides), "memory://initial") for overrides in ([], others))
    assert same["train"].view.initial_weights.same_classes is True
    assert other["train"].view.initial_weights.same_classes is False
    assert same["train"].fingerprint != other["train"].fingerprint


def test_what_cannot_be_started_from_blocks_the_plan(small_finished, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.toml").write_text("")
    names = ("nowhere", "folder", "checkpoint-80-rank-0.safetensors", "checkpoint-80.json", "other.toml")
    nothing, part = "there is no run, output or file of weights at", "is part of a training's checkpoint"
    reasons = (nothing, nothing, part, part, "is a recipe")
    for name, reason in zip(names, reasons, strict=True):
        absent = plan(recipe_from(tmp_path / name), "memory://initial")
        assert absent["train"].action == "blocked"
        assert re.match(rf"train\.init_from: .*{reason}.*[Nn]ame .*run", str(absent.obstacle)), absent.obstacle
        assert reason in estimate(absent).missing["train.init_from"]
    tokens = plan(recipe_from(small_finished.plan["tokenize"].output.path), "memory://initial")
    assert "is an output of stage 'tokenize'" in str(tokens.obstacle)
    wider = plan(recipe_from(small_finished.folder, "model.hidden_size=16"), "memory://initial")
    assert "hidden_size" in estimate(wider).missing["train.init_from"]
    with pytest.raises(WeightsError, match="hidden_size"):
        run(recipe_from(small_finished.folder, "model.hidden_size=16"), str(tmp_path / "store"), device="cpu", quiet=True)
    assert not (tmp_path / "store/tokenize").exists()


def test_a_run_that_would_start_from_its_own_results_is_refused(small_finished, tmp_path, monkeypatch):
    """Else the same command would train again and again, each time from the last results."""
    store = shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    path = tmp_path / "again.toml"
    path.write_text(f'extends = "{SMALL}"\n')
    monkeypatch.chdir(tmp_path)
    first = run(path, str(store), device="cpu", quiet=True)
    path.write_text(f'extends = "{SMALL}"\ntrain.init_from = "runs/again"\n')
    with pytest.raises(RecipeError, match="each run would train again from the one before") as refused:
        run(path, str(store), device="cpu", quiet=True)
    cure = str(refused.value).partition("start: ")[2].removesuffix(".")
    assert cure == f'train.init_from = "{first.plan["train"].output.path}"'
    path.write_text(f'extends = "{SMALL}"\n{cure}\n')
    for action in ("ran", "cached"):
        done = run(path, str(store), device="cpu", quiet=True, until="train")
        assert done.results[-1].action == action


def test_weights_that_change_after_the_plan_are_refused(small_finished, tmp_path):
    place = checkpoint(small_finished, tmp_path)
    planned = plan(recipe_from(place), "memory://initial")
    state, _ = started(planned)
    write_tensors({name: tensor + 1 for name, tensor in state.items()}, place, {})
    with pytest.raises(WeightsError, match="has changed since the run was planned"):
        started(planned)


def test_a_bundle_whose_numbers_are_others_is_refused(small_finished, tmp_path):
    """Plans look at names and shapes alone; what is read is compared."""
    place = tmp_path / "bundle.safetensors"
    tensors, metadata = read_tensors(local_copy(export_bundle(small_finished.folder, place)))
    name = next(name for name in tensors if name.startswith("model."))
    write_tensors({**tensors, name: tensors[name] + 1}, place, metadata)
    planned = plan(recipe_from(place), "memory://initial")
    assert planned.obstacle is None
    with pytest.raises(WeightsError, match=r"is damaged \(its arrays are not those that were written\)"):
        started(planned)


def test_the_output_it_starts_from_is_read_while_it_trains(small_finished):
    stage = plan(recipe_from(small_finished.folder), "memory://initial")["train"]
    assert [output.name for output in stage.stage.reads(stage.view)] == [small_finished.plan["train"].output.name]
    assert output_named("memory://nothing/here") is None
