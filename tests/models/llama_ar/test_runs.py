"""Recipes that name ``llama_ar``: its schedule, a whole run, an export and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rarkit import load_recipe, plan, run, sample
from rarkit.errors import RecipeError
from rarkit.inference.export import export_model
from rarkit.permutation_schedules.constant import Constant as ConstantRatio
from rarkit.recipe.experiment import resolve
from rarkit.recipe.rehearsal import rehearsal
from rarkit.sampling import Constant, generate
from rarkit.stages.train import trained_model

LLAMA = ("model.name=llama_ar", "model.hidden_size=16", "model.depth=1", "model.num_heads=2")
ALONG_THE_ORDER = ("permutation_schedule.name=constant", "permutation_schedule.ratio=0.0")


@pytest.fixture
def load(digits_recipe, short_overrides):
    others = [override for override in short_overrides if not override.startswith("model.")]
    return lambda *overrides: load_recipe(digits_recipe, [*others, *LLAMA, *overrides])


@pytest.mark.parametrize("schedule", ["linear", "constant", "cosine", "step"])
def test_permutations_are_refused_with_a_word(load, schedule):
    with pytest.raises(RecipeError, match=r"'llama_ar' trains only along its scan order.*remove \[permutation_schedule\]"):
        load(f"permutation_schedule.name={schedule}")


def test_a_recipe_that_leaves_the_schedule_out_is_trained_along_the_order(tmp_path):
    path = tmp_path / "plain.toml"
    path.write_text(
        'title = "t"\n[dataset]\nname = "digits"\n[tokenizer]\nname = "pixel"\n'
        '[model]\nname = "llama_ar"\nhidden_size = 16\ndepth = 1\nnum_heads = 2\n[train]\nsteps = 2\nbatch_size = 4\n'
    )
    experiment = resolve(load_recipe(str(path)))
    assert experiment.schedule == ConstantRatio(ratio=0.0)
    assert experiment.config.grid == experiment.grid == (8, 8)
    assert plan(load_recipe(str(path)), str(tmp_path / "store")).experiment.config == experiment.config


@pytest.fixture(scope="module")
def done(digits_recipe, short_overrides, tmp_path_factory):
    others = [override for override in short_overrides if not override.startswith("model.")]
    folder = tmp_path_factory.mktemp("llama_ar")
    recipe = load_recipe(digits_recipe, [*others, *LLAMA, *ALONG_THE_ORDER, "train.micro_batch_size=4"])
    return run(recipe, str(folder / "store"), device="cpu", runs=folder / "runs", quiet=True)


def test_a_run_gives_images_and_numbers(done):
    numbers = {record.name: record.value for record in done.metrics}
    assert np.isfinite(numbers["bits_per_token"])
    assert numbers["frechet_distance"] > 0
    assert {"report.html", "samples.png", "metrics.json"} <= {path.name for path in done.folder.iterdir()}


def test_what_is_exported_is_what_was_trained_and_samples_alike(done, tmp_path):
    path = export_model(done.folder, tmp_path / "model.safetensors")
    recipe, outputs = done.plan.recipe, done.plan.outputs()
    config = resolve(recipe).config
    trained = trained_model(outputs["train"], recipe.model, config, recipe.attention, "cpu")
    loaded = recipe.model.load(path, config, recipe.attention.build(), device="cpu", dtype=None)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in trained.state_dict().items())
    drawn = [generate(model, [0, 1, 2], order=torch.arange(16), guidance=Constant(scale=2.0)) for model in (trained, loaded)]
    assert torch.equal(*drawn)


def test_a_run_is_sampled_again_along_another_order_too(done):
    own, other = (sample(done.folder, ["3", "7"], 2, scan_order=order, device="cpu", quiet=True) for order in (None, "spiral"))
    assert own.images_NHWC.shape == other.images_NHWC.shape == (4, 8, 8, 1)
    assert not np.array_equal(own.tokens_NL, other.tokens_NL)


def test_it_is_rehearsed(load, tmp_path):
    small = rehearsal(load(*ALONG_THE_ORDER, "model.hidden_size=512", "model.num_heads=8"), "cpu")
    assert (small.model.hidden_size, small.model.depth) == (128, 2)
    finished = run(small, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert finished.metrics
