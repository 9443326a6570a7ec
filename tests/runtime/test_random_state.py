"""The random state that a process shares, torch's, NumPy's and Python's, is its user's: nothing in rarkit moves it."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
import pytest
import torch

import rarkit
from rarkit.estimate.estimate import estimate
from rarkit.inference.export import export_bundle, export_model
from rarkit.pipeline.execution import execute
from rarkit.pipeline.plan import STAGE_NAMES
from rarkit.pipeline.run import rehearse
from rarkit.pipeline.trial import try_parts
from rarkit.recipe.experiment import resolve
from rarkit.registry import registered
from rarkit.runtime.progress import Reporter
from rarkit.runtime.random_state import random_state_kept


def state():
    return random.getstate(), str(np.random.get_state()), tuple(torch.get_rng_state().tolist())


def draw():
    return random.random(), np.random.random(), torch.rand(1).item()


@pytest.fixture
def planned(small_recipe, tmp_path):
    return lambda **about: rarkit.plan(rarkit.load_recipe(small_recipe), str(tmp_path / "store"), **about)


def test_no_stage_and_no_trial_of_parts_draws_from_it(planned):
    """Without what puts it back: ``execute`` and ``try_parts`` do not."""
    moved = []
    for name in STAGE_NAMES:
        before = state()
        try_parts(planned(until=name), "cpu")
        moved += [f"the trial before {name}"] * (state() != before)
        before = state()
        execute(planned(until=name), "cpu", Reporter(quiet=True), lambda stage, record: None)
        moved += [name] * (state() != before)
    assert moved == []
    before = state()
    try_parts(planned(force=STAGE_NAMES), "cpu")
    assert state() == before


class Draws(rarkit.ScanOrder):
    """Draws from all shared generators, and seeds them."""

    name: Literal["draws"] = "draws"

    def order(self, height, width):
        draw()
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        draw()
        return np.arange(height * width)


def test_no_public_call_moves_it_whatever_parts_do(small_recipe, small_finished, tmp_path, monkeypatch):
    monkeypatch.setattr(registered, "_registered", {})
    rarkit.register(Draws)
    recipe = rarkit.load_recipe(small_recipe, ["scan_order.name=draws"])
    source = str(small_finished.folder)
    loaded = rarkit.load(source, device="cpu")
    calls = {
        "plan": lambda: rarkit.plan(recipe, str(tmp_path / "store")),
        "run": lambda: rarkit.run(recipe, str(tmp_path / "store"), until="train", runs=tmp_path / "runs", device="cpu", quiet=True),
        "rehearse": lambda: rehearse(recipe, device="cpu", runs=tmp_path / "runs", quiet=True),
        "load_recipe": lambda: rarkit.load_recipe(small_recipe),
        "sample": lambda: rarkit.sample(source, [0], 1, device="cpu", quiet=True),
        "export": lambda: export_model(source, tmp_path / "model.safetensors"),
        "export --bundle": lambda: export_bundle(source, tmp_path / "bundle.safetensors"),
        "load": lambda: rarkit.load(tmp_path / "bundle.safetensors", device="cpu"),
        "Pipeline.sample": lambda: loaded.sample(0, 1, order=Draws()),
        "Pipeline.log_likelihood": lambda: loaded.log_likelihood(np.zeros((1, 4, 4, 1), np.uint8), 0, Draws()),
        "Pipeline.logits": lambda: loaded.logits(np.zeros((1, 4), int), 0, Draws()),
        "estimate": lambda: estimate(small_finished.plan, measure=True),
    }
    before = state()
    moved = []
    for name, call in calls.items():
        call()
        moved += [name] * (state() != before)
    assert moved == []
    resolve(recipe)
    assert state() != before, "the part did not draw"


@random_state_kept()
def draws_twice_and_fails():
    draw()
    inside = state()
    with random_state_kept():
        draw()
    assert state() == inside
    raise ValueError("stopped")


def test_it_is_put_back_after_an_error_and_within_itself():
    before = state()
    with pytest.raises(ValueError, match="stopped"):
        draws_twice_and_fails()
    assert state() == before


def test_torch_that_is_loaded_meanwhile_starts_from_its_seed(tmp_path):
    from subprocess import run as start
    from sys import executable

    code = (
        "from rarkit.runtime.random_state import random_state_kept\n"
        "with random_state_kept():\n"
        "    import torch\n"
        "    first = torch.rand(3)\n"
        "assert torch.equal(torch.rand(3), first)"
    )
    assert start([executable, "-c", code]).returncode == 0
