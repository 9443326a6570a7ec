"""From images to a recipe that runs: what is found, what is chosen, and what odd places are answered."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rarkit import plan
from rarkit.proposal.new_recipe import new_recipe, write_recipe
from rarkit.proposal.timing import Seconds
from rarkit.recipe.load import load_recipe


def clock(experiment):
    """A machine that takes 25 ms for a step of a small model, and more for others."""
    return Seconds(0.025 * experiment.costs.step_flops(1, checkpointing=0) / 1e7, 2.0)


def proposed(place, path="recipe.toml", **options):
    return new_recipe(str(place), str(path), clock=clock, tokenizer_clock=lambda *_: 0.1, **options)


def picture(seed, width=40, height=30, mode="RGB"):
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels)


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("cats", "dogs")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(15):
            picture(100 * label + number).save(tmp_path / "pets" / name / f"{number:02}.png")
    return tmp_path / "pets"


def test_a_folder_becomes_a_recipe_that_plans(folder, tmp_path):
    recipe = proposed(folder, tmp_path / "pets.toml")
    write_recipe(recipe)
    loaded = load_recipe(tmp_path / "pets.toml")
    planned = plan(loaded, str(tmp_path / "store"))
    assert planned.obstacle is None
    assert planned.experiment.images.class_names == ("cats", "dogs")
    assert planned.experiment.images.height % planned.experiment.grid[0] == 0
    assert loaded.dataset.path == str(folder)
    assert 'path = "pets"' in recipe.text  # both can be moved together
    assert recipe.survey.images == {"train": 24, "test": 6}
    assert recipe.survey.classes == (("cats", 12), ("dogs", 12))
    written = loaded.model_dump(exclude_unset=True, mode="json")
    for table, settings in recipe.proposal.as_recipe().items():
        if isinstance(settings, dict):
            assert {key: written[table][key] for key in settings if key != "path"} == {
                key: value for key, value in settings.items() if key != "path"
            }


def test_each_line_says_why(folder, tmp_path):
    recipe = proposed(folder, tmp_path / "pets.toml")
    silent = [choice.key for choices in recipe.proposal.tables.values() for choice in choices if not choice.why]
    assert silent == []
