"""A run's numbers are its own, whatever ran before it or since, and recipes made in Python do not replace each other."""

from __future__ import annotations

import json
import shutil

import pytest

from rarkit import load_recipe, run
from rarkit.errors import IncompleteError


@pytest.fixture
def again(small_finished, small_recipe, tmp_path):
    """Runs the small recipe on a copy of its store; takes ``run``'s arguments, and a recipe or overrides."""
    store = tmp_path / "store"
    shutil.copytree(small_finished.plan.store.root, store)

    def call(recipe=None, *overrides, **arguments):
        chosen = load_recipe(small_recipe, overrides) if recipe is None else recipe
        return run(chosen, str(store), device="cpu", runs=tmp_path / "runs", quiet=True, **arguments)

    return call


def test_runs_of_a_sweep_keep_their_own_numbers_and_folders(again):
    sweep = [again(None, f"sample.temperature={value}") for value in (0.5, 3.0)]
    before = [json.loads((done.folder / "metrics.json").read_text())["metrics"] for done in sweep]
    again(None, "sample.temperature=9.0")
    assert [[metric.to_json() for metric in done.metrics] for done in sweep] == before
    assert before[0] != before[1]
    assert len({done.folder for done in sweep}) == 2


def test_a_run_that_stops_early_has_no_numbers_of_an_earlier_one(again):
    whole = again()
    assert whole.metrics
    receipt = json.loads((whole.folder / "receipt.json").read_text())
    for arguments in ({}, {"force": ("train",)}):
        early = again(None, until="train", **arguments)
        assert early.metrics == early.lacking == []
    # The folder still shows them, and its receipt says so.
    assert json.loads((whole.folder / "receipt.json").read_text())["metrics"] == receipt["metrics"]


def test_numbers_that_are_gone_are_no_empty_list(again):
    again()
    cached = again()
    shutil.rmtree(cached.plan["evaluate"].output.path)
    with pytest.raises(IncompleteError):
        _ = cached.metrics


def test_recipes_made_in_python_are_named_after_their_parts(again, small_recipe):
    loaded = load_recipe(small_recipe)
    made = [type(loaded).model_validate({**loaded.model_dump(), "title": title}) for title in ("one", "other")]
    assert [recipe.recipe_name for recipe in made] == ["generated-rar"] * 2
    first, other = (again(recipe) for recipe in made)
    assert first.folder.name == "generated-rar"
    assert other.folder != first.folder
    assert again(made[0], name="mine").folder.name == "mine"
