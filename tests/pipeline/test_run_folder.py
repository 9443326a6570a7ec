"""Each recipe has a folder of results of its own, and finds it again."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

import rarkit
from rarkit import load_recipe, plan, run
from rarkit.errors import RarkitWarning, RecipeError, StoreError
from rarkit.pipeline.kept_receipts import NUMBER
from rarkit.pipeline.run_folder import CLAIM, claimed, folder_of, release, variant
from tests.pages import blocks
from tests.rules import ROOT

OVERRIDE = "tokenizer.codes=4"


@pytest.fixture
def project(tmp_path, small_recipe):
    """A folder with two recipes of one name, ``a/small.toml`` and ``b/small.toml``."""
    for folder in ("a", "b"):
        (tmp_path / "project" / folder).mkdir(parents=True)
        shutil.copy(small_recipe, tmp_path / "project" / folder)
    return tmp_path / "project"


def fit(project, recipe, *overrides, **options):
    """Runs the first stage of a recipe; returns the name of the folder of results."""
    loaded = load_recipe(str(project / recipe), overrides)
    quiet = {"until": "fit", "device": "cpu", "quiet": True, **options}
    return run(loaded, str(project / "store"), runs=project / "runs", **quiet).folder.name


def test_recipes_of_one_name_and_variants_have_folders_of_their_own(project, capfd, monkeypatch):
    assert fit(project, "a/small.toml") == "small"
    kept = (project / "runs/small/receipt.json").read_bytes()
    other = fit(project, "b/small.toml", quiet=False)
    printed = capfd.readouterr().err.replace("\n", "")
    assert f"results go to {project / 'runs' / other}: {project / 'runs/small'} is of another recipe" in printed
    changed = fit(project, "a/small.toml", OVERRIDE)
    assert len({other, changed}) == 2
    assert all(name.startswith("small-") and len(name) == len("small-") + 6 for name in (other, changed))
    assert (project / "runs/small/receipt.json").read_bytes() == kept
    # Each replaces its own results, from whatever folder it is run.
    monkeypatch.chdir(project)
    assert [fit(Path(), "b/small.toml"), fit(Path(), "a/small.toml", OVERRIDE), fit(Path(), "a/small.toml")] == [
        other,
        changed,
        "small",
    ]
    (project / "a/small.toml").write_text((project / "a/small.toml").read_text().replace("codes = 5", "codes = 6"))
    assert fit(project, "a/small.toml") == "small", "an edited recipe is the same recipe"
    assert (project / "runs/small/receipt.json").read_bytes() != kept
    assert sorted(path.name for path in (project / "runs").iterdir()) == sorted([NUMBER, "small", other, changed])
    assert not list(project.rglob(CLAIM))


def test_a_project_that_was_moved_keeps_its_folders(project, tmp_path):
    folders = [fit(project, recipe) for recipe in ("b/small.toml", "a/small.toml")]
    project.rename(tmp_path / "elsewhere")
    assert [fit(tmp_path / "elsewhere", recipe) for recipe in ("b/small.toml", "a/small.toml")] == folders


def test_what_python_changes_after_loading_is_another_variant(project):
    recipe = load_recipe(str(project / "a/small.toml"))
    runs = project / "runs"
    changed = recipe.model_copy(update={"seed": 7})
    assert variant(recipe, runs) == {"file": "../a/small.toml", "overrides": []}
    assert variant(changed, runs) not in (variant(recipe, runs), variant(recipe.model_copy(update={"seed": 8}), runs))
    without_file = type(recipe).model_validate(recipe.model_dump())
    assert variant(without_file, runs) == {"content": recipe.content_digest}


def test_a_run_can_be_given_a_name(project):
    assert fit(project, "a/small.toml", name="first") == "first"
    assert fit(project, "a/small.toml", OVERRIDE, name="first").startswith("first-")
    assert fit(project, "a/small.toml", name="first") == "first"
    for wrong in ("", "..", "a/b"):
        with pytest.raises(RecipeError, match="cannot name a folder"):
            fit(project, "a/small.toml", name=wrong)


@pytest.mark.parametrize("name", ["..", ".", "...", "../elsewhere", "/elsewhere", "a/../..", "a\0b", ""])
def test_no_name_leads_out_of_the_folder_of_runs(project, name):
    """A file may be called ``...toml``, which is ``..`` without its suffix, and a receipt may say any name."""
    recipe = load_recipe(str(project / "a/small.toml"))
    # As a pickle may have it.
    called = recipe._known_as(name, "", False, recipe.origin)
    assert folder_of(called, project / "runs").parent == project / "runs"
    assert folder_of(called, project / "runs").name not in (".", "..")
    with pytest.raises(RecipeError, match="cannot name a folder of results"):
        recipe.named(name)
    for dots in ("...toml", "..toml", "....toml"):
        shutil.copy(project / "a/small.toml", project / dots)
        assert load_recipe(str(project / dots)).recipe_name == "recipe"


def test_two_runs_at_the_same_time_never_choose_the_same_folder(project):
    recipes = [load_recipe(str(project / f"{folder}/small.toml"), [f"seed={seed}"]) for folder in "ab" for seed in range(4)]
    for attempt in range(10):
        runs, together = project / f"runs{attempt}", Barrier(len(recipes))

        def claim(recipe, runs=runs, together=together):
            together.wait()
            return claimed(recipe, runs)

        with ThreadPoolExecutor(len(recipes)) as pool:
            folders = list(pool.map(claim, recipes))
        assert len(set(folders)) == len(recipes)
        assert runs / "small" in folders
        assert [claimed(recipe, runs) for recipe in recipes] == folders
        assert [folder_of(recipe, runs) for recipe in recipes] == folders
        for recipe, folder in zip(recipes, folders, strict=True):
            release(folder, variant(recipe, runs))
        assert list(runs.iterdir()) == [], "those who leave nothing give their folder up"


def test_a_run_that_fails_gives_the_name_up(project):
    in_the_way = project / "runs/small/report.html"
    in_the_way.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot write results to"):
        fit(project, "a/small.toml", OVERRIDE)
    assert not (project / "runs/small" / CLAIM).exists()
    in_the_way.rmdir()
    assert fit(project, "a/small.toml") == "small"


def test_folders_of_an_older_rarkit_are_replaced_by_the_same_recipe_only(project):
    fit(project, "a/small.toml")
    receipt = project / "runs/small/receipt.json"
    content = json.loads(receipt.read_text())
    del content["variant"]
    receipt.write_text(json.dumps({**content, "format": 2}))
    assert folder_of(load_recipe(str(project / "b/small.toml"), [OVERRIDE]), project / "runs").name != "small"
    assert folder_of(load_recipe(str(project / "a/small.toml")), project / "runs").name == "small"


def test_a_place_where_no_folder_can_be_made_is_named(project):
    (project / "runs").write_text("")
    with pytest.raises(StoreError, match=r"cannot write results to .*runs"):
        fit(project, "a/small.toml")


def test_a_store_that_can_only_be_read_serves_finished_runs(project):
    fit(project, "a/small.toml")
    shutil.rmtree(project / "store/receipts")
    # Nothing can be written where a file is in the way, not even by root.
    (project / "store/receipts").write_text("")
    with pytest.warns(RarkitWarning, match="the store has no receipt of this run"):
        assert fit(project, "b/small.toml").startswith("small-")
    assert (project / f"runs/{folder_of(load_recipe(str(project / 'b/small.toml')), project / 'runs').name}/receipt.json").exists()


def test_a_plan_compares_with_the_last_run_of_the_same_recipe(project):
    store = str(project / "store")

    def reason(recipe, *overrides):
        return plan(load_recipe(str(project / recipe), overrides), store, until="fit")["fit"].reason

    fit(project, "a/small.toml", "tokenizer.iterations=4")
    fit(project, "a/small.toml")
    fit(project, "a/small.toml", OVERRIDE)
    assert reason("b/small.toml", "seed=1") == "not in the store yet", "another recipe of the same name"
    # The same overrides, then none, then any; not the last run.
    assert reason("a/small.toml", "tokenizer.iterations=2") == "settings changed: tokenizer.iterations: 3 → 2"
    for old, new in (("patch = 2", "patch = 1"), ("iterations = 3", "iterations = 5")):
        (project / "a/small.toml").write_text((project / "a/small.toml").read_text().replace(old, new))
    assert reason("a/small.toml") == "settings changed: tokenizer.patch: default → 1, tokenizer.iterations: 3 → 5"
    assert reason("a/small.toml", OVERRIDE) == "settings changed: tokenizer.patch: default → 1, tokenizer.iterations: 3 → 5"
    assert reason("a/small.toml", "tokenizer.iterations=4") == "settings changed: tokenizer.patch: default → 1"


def test_a_plan_says_that_the_data_changed_and_not_what_its_digest_is(project):
    images = project / "images.npz"

    def write(shade):
        np.savez(images, images=np.arange(512, dtype=np.uint8).reshape(8, 8, 8, 1) // shade, labels=np.arange(8) % 2)

    tables = {
        "model": {"hidden_size": 8, "depth": 1, "num_heads": 2},
        "train": {"steps": 1, "batch_size": 4, "warmup_steps": 0},
        "sample": {},
        "evaluate": {},
    }
    tokenizer = {"name": "patch_kmeans", "patch": 4, "codes": 2}
    recipe = rarkit.make_recipe(dataset={"name": "npz", "path": str(images)}, tokenizer=tokenizer, **tables)
    write(1)
    run(recipe, str(project / "store"), runs=project / "runs", until="fit", device="cpu", quiet=True)
    write(2)
    assert plan(recipe, str(project / "store"), until="fit")["fit"].reason == "settings changed: the data of [dataset]"


def test_the_example_of_the_readme_leaves_the_run_before_it_alone(tmp_path, monkeypatch):
    """The Python of README.md comes after ``rarkit run recipes/digits.toml``, with other settings."""
    [example] = [block for block in blocks(ROOT / "README.md") if "rarkit.run(" in "\n".join(block.lines)]
    recipe, overrides = re.search(r'load_recipe\("(.+?)", (\[.+?\])\)', "\n".join(example.lines)).groups()
    monkeypatch.chdir(ROOT)
    before, example = load_recipe(recipe), load_recipe(recipe, json.loads(overrides))
    assert claimed(before, tmp_path).name == "digits"
    assert claimed(example, tmp_path).name.startswith("digits-")
    assert claimed(before, tmp_path).name == "digits"
