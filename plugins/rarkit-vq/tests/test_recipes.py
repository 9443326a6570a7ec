"""The recipes that name this plugin's tokenizer, photos.toml and own_images.toml: they plan, and all their stages run in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rarkit

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """What has to be set for each recipe: nothing, or where the images are, with odd sizes and transparency among them."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("train/cats", "train/dogs", "val/cats", "val/dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            height, width, channels = generator.integers(20, 60), generator.integers(20, 60), 3 + number % 2
            image = Image.fromarray(generator.integers(0, 256, (height, width, channels), np.uint8))
            image.save(folder / name / f"{number}.png")
    return {"photos.toml": [], "own_images.toml": [f"dataset.path={folder}"]}


@pytest.mark.parametrize("name", ["photos.toml", "own_images.toml"])
def test_a_recipe_plans_and_rehearses(name, changes, tmp_path):
    planned = rarkit.plan(rarkit.load_recipe(RECIPES / name, changes[name]), str(tmp_path / "store"))
    assert planned.obstacle is None
    assert planned.stages[0].name == "fit"
    assert planned.experiment.grid == (4, 4)
    sets = [word for change in changes[name] for word in ("--set", change)]
    run = [sys.executable, "-m", "rarkit", "run", str(RECIPES / name), *sets]
    done = subprocess.run([*run, "--rehearse", "--device", "cpu", "--runs", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{name.removesuffix('.toml')}-rehearsal/report.html").exists()


def test_a_new_recipe_for_images_has_the_tokenizer(changes, tmp_path):
    [change] = changes["own_images.toml"]
    folder, place = change.partition("=")[2], tmp_path / "mine.toml"
    command = [sys.executable, "-m", "rarkit", "new", folder, "-o", str(place), "--minutes", "0.5", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    planned = rarkit.plan(rarkit.load_recipe(place), str(tmp_path / "store"))
    assert planned.obstacle is None
    assert planned.recipe.tokenizer.name == "vq"
    assert planned.recipe.tokenizer.codebook_size() <= 8 * 16
