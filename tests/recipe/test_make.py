"""Recipes from Python: made of names, tables and parts, changed by ``replace``, pickled."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal, final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rarkit
from rarkit.datasets.digits import Digits
from rarkit.errors import RecipeError
from rarkit.estimate.estimate import estimate
from rarkit.features.classifier import Classifier
from rarkit.recipe.make import as_recipe
from rarkit.sampling.guidance import Linear
from rarkit.scan_orders.raster import Raster
from rarkit.scan_orders.spiral import Spiral

TRAIN = {"steps": 3, "batch_size": 8}
SMALL = {"hidden_size": 32, "depth": 1, "num_heads": 2}
SMALL_FILE = (
    'title = "t"\n[dataset]\nname = "digits"\n[tokenizer]\nname = "pixel"\n[model]\nhidden_size = 32\n'
    "depth = 1\nnum_heads = 2\n"
    "[train]\nsteps = 3\nbatch_size = 8\n"
)


def small(**tables):
    return rarkit.make_recipe(
        **{"dataset": "digits", "tokenizer": "pixel", "model": SMALL, "train": TRAIN, "sample": {}, "evaluate": {}, **tables}
    )


def test_names_tables_and_parts_make_the_same_recipe():
    of_names = small(
        scan_order="spiral", sample={"guidance": {"name": "linear", "scale": 2.5}}, evaluate={"features": "classifier"}
    )
    of_parts = small(
        dataset=Digits(),
        scan_order=Spiral,
        train=rarkit.TrainSettings(**TRAIN),
        sample=rarkit.SampleSettings(guidance=Linear(scale=2.5)),
        evaluate=rarkit.EvaluateSettings(features=Classifier()),
    )
    assert of_names == of_parts
    assert of_names.scan_order == Spiral()
    assert of_names.title == "digits, pixel, spiral"
    assert of_names.recipe_name == "digits-rar"
    assert small(name="mine").recipe_name == "mine"
    assert of_names.model.name == "rar"


def test_a_file_and_its_tables_are_the_same_recipe(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL_FILE)
    made = {"title": "t", "dataset": "digits", "tokenizer": {"name": "pixel"}, "model": SMALL, "train": TRAIN}
    loaded = rarkit.load_recipe(file)
    assert as_recipe(made).content_digest == loaded.content_digest == as_recipe(file).content_digest
    assert as_recipe(loaded) is loaded
    assert [stage.fingerprint for stage in rarkit.plan(file, tmp_path / "store").stages] == [
        stage.fingerprint for stage in rarkit.plan(made, str(tmp_path / "store")).stages
    ]
    assert estimate(made).model == estimate(rarkit.plan(file, tmp_path / "store")).model
    with pytest.raises(RecipeError, match="found 7 where a recipe is needed"):
        rarkit.plan(7)


def test_mistakes_are_told_as_those_of_files():
    with pytest.raises(RecipeError, match=r"scan_order.*no scan order is called 'spirall'; did you mean 'spiral'\?"):
        small(scan_order="spirall")
    with pytest.raises(RecipeError, match=r"train\.step: no such key; did you mean 'steps'\?"):
        small(train={"step": 3, "batch_size": 8})
    with pytest.raises(RecipeError, match=r"no such key; did you mean 'sample'\?"):
        as_recipe({"dataset": "digits", "tokenizer": "pixel", "model": SMALL, "train": TRAIN, "sampel": {}})


@final
class Other(rarkit.ScanOrder):
    """Not installed, and calls itself raster."""

    name: Literal["raster"] = "raster"

    def order(self, height, width):
        return np.arange(height * width)[::-1].copy()


@pytest.mark.parametrize("given", [Other, Other()], ids=["class", "part"])
def test_a_part_that_is_not_the_one_of_its_name_is_refused(given):
    with pytest.raises(RecipeError, match=r"scan_order: the class .*Other is neither installed nor registered as 'raster'\."):
        small(scan_order=given)
    with pytest.raises(RecipeError, match=r"rarkit\.register\(Other\)"):
        small().replace({"scan_order": given})


def test_replace_changes_what_it_names_alone():
    recipe = small(name="mine", sample={"top_k": 5})
    changed = recipe.replace(
        {"sample.temperature": np.float64(0.9), "scan_order": "spiral", "evaluate": None, "train.steps": np.int64(7)}
    )
    assert (changed.sample.temperature, changed.sample.top_k, changed.train.steps) == (0.9, 5, 7)
    assert changed.scan_order == Spiral()
    assert changed.evaluate is None
    assert changed.recipe_name == "mine"
    assert (recipe.sample.temperature, recipe.scan_order, recipe.train.steps) == (1.0, Raster(), 3)
    assert changed.replace({"scan_order": None}).scan_order == Raster()
    assert recipe.replace({}) == recipe
    assert changed.replace({"scan_order.name": "raster"}).scan_order == Raster()
    outward = recipe.replace({"scan_order": Spiral(direction="outward")})
    assert outward.replace({"scan_order.direction": "inward"}).scan_order == Spiral()
    assert small(sample=None, evaluate=None).replace({"sample.top_k": 3}).sample.top_k == 3


def test_no_change_undoes_another_whatever_their_order():
    changes = {"scan_order.direction": "outward", "scan_order.name": "spiral", "sample.top_k": 3, "sample": {"temperature": 0.5}}
    for ordered in (changes, dict(reversed(changes.items()))):
        changed = small().replace(ordered)
        assert changed.scan_order == Spiral(direction="outward")
        assert (changed.sample.top_k, changed.sample.temperature) == (3, 0.5)


@pytest.mark.parametrize("name", ["../out", "a/b", "..", "a\x1b[31m", "a\n", "a" * 300, 3])
def test_a_name_that_no_folder_can_have_is_refused(name, tmp_path):
    with pytest.raises(RecipeError, match=r"name .* cannot name a folder of results\. Choose"):
        small(name=name)
    with pytest.raises(RecipeError, match=r"name .* cannot name a folder of results\. Choose"):
        rarkit.run(small(), str(tmp_path / "store"), name=name, runs=tmp_path / "runs", device="cpu", quiet=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sample.temprature": 0.9}, r"digits-rar: sample\.temprature: no such key; did you mean 'temperature'\?"),
        ({"sampel.temperature": 0.9}, r"sampel: no such key; did you mean 'sample'\?"),
        ({"sample.temperature": -1}, r"sample\.temperature: found -1"),
        ({"sample.temperature.x": 1}, "'temperature' is 1.0, not a table"),
        ({"": 1}, "expected the dotted path of a setting"),
        ({"train": None}, "neither a .train. table nor model.weights"),
        ({"scan_order.direction": "outward"}, r"scan_order\.direction: no such key"),
        ({"dataset": None}, "dataset"),
    ],
)
def test_replace_refuses_what_is_no_setting(changes, told):
    with pytest.raises(RecipeError, match=told):
        small().replace(changes)


def test_a_changed_recipe_of_a_file_is_another_one(digits_recipe):
    recipe = rarkit.load_recipe(digits_recipe)
    changed = recipe.replace({"sample.temperature": 0.5})
    assert changed.origin == recipe.origin
    assert changed.content_digest != recipe.content_digest == recipe.origin.content
    assert changed.command == ""


@given(
    temperature=st.floats(0.1, 2),
    steps=st.integers(1, 99),
    features=st.integers(1, 99),
    order=st.sampled_from(["raster", "spiral"]),
)
def test_recipes_pickle(temperature, steps, features, order):
    changes = {"sample.temperature": temperature, "train.steps": steps, "evaluate.features.features": features, "scan_order": order}
    recipe = small(name="mine").replace(changes)
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert (type(again), again.recipe_name, again.origin) == (type(recipe), "mine", recipe.origin)
    assert pickle.loads(pickle.dumps(recipe.evaluate)) == recipe.evaluate


def in_another_process(recipe, plan, run):
    rarkit_plan = rarkit.plan(recipe, plan.store.url)
    fingerprints = [stage.fingerprint for stage in rarkit_plan.stages]
    return recipe.content_digest, fingerprints, [stage.fingerprint for stage in plan.stages], run.metrics, run.samples, run.log


def test_recipes_plans_and_runs_go_to_processes_that_were_spawned(finished):
    recipe, plan = finished.plan.recipe, finished.plan
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        digest, planned, were, metrics, samples, log = pool.submit(in_another_process, recipe, plan, finished).result()
    assert digest == recipe.content_digest
    assert planned == were == [stage.fingerprint for stage in plan.stages]
    assert metrics == finished.metrics
    np.testing.assert_array_equal(samples, finished.samples)
    assert log.keys() == finished.log.keys()


def test_a_run_gives_what_it_made(finished):
    output = finished.plan["sample"].output
    np.testing.assert_array_equal(finished.samples, output.read_array("images"))
    np.testing.assert_array_equal(finished.tokens, output.read_array("tokens"))
    np.testing.assert_array_equal(finished.labels, output.read_array("labels"))
    steps = finished.plan.recipe.train.steps
    assert {name: len(column) for name, column in finished.log.items()} == dict.fromkeys(finished.log, steps)
    assert list(finished.log["step"]) == list(range(steps))
    assert all(isinstance(metric, rarkit.MetricRecord) for metric in finished.metrics)


def test_a_run_that_stopped_before_says_so(tmp_path):
    done = rarkit.run(
        {"dataset": "digits", "tokenizer": "pixel", "model": SMALL, "train": TRAIN},
        tmp_path / "store",
        runs=Path(tmp_path / "runs"),
        until="tokenize",
        device="cpu",
        quiet=True,
    )
    assert done.metrics == []
    for name in ("samples", "labels", "tokens"):
        with pytest.raises(rarkit.RarkitError, match=r"the run has no samples: its recipe has no \[sample\], or it stopped before"):
            getattr(done, name)
    with pytest.raises(rarkit.RarkitError, match="has no training log"):
        _ = done.log
