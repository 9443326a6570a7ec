"""Small folders of noise, what would be found in large ones, and a machine of a known speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rarkit.proposal.choice import Choice
from rarkit.proposal.layout import Layout
from rarkit.proposal.look import Look
from rarkit.proposal.new_recipe import NewRecipe, new_recipe
from rarkit.proposal.survey import Survey
from rarkit.proposal.timing import Seconds


def clock(experiment):
    """A machine of 10 GFLOP/s."""
    return Seconds(experiment.costs.step_flops(experiment.recipe.train.batch_size, checkpointing=0) / 1e10, 2.0)


def proposed(place, path="recipe.toml", **options) -> NewRecipe:
    return new_recipe(str(place), str(path), clock=clock, tokenizer_clock=lambda *_: 0.1, **options)


def picture(seed, width=40, height=36, mode="RGB"):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels)


def filled(folder: Path, count: int, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(len(folder.name) + number, **options).save(folder / f"{number:02}.png")
    return folder


def survey_of(count: int, side: int, classes: int = 2, test: int | None = None) -> Survey:
    """Of a folder of so many training images, of which twenty were looked at."""
    crops = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    looks = tuple(Look(str(row), row % classes, width=side, height=side, crop_HWC=crop_HWC) for row, crop_HWC in enumerate(crops))
    names = tuple(map(str, range(classes)))
    layout = Layout("a folder", (Choice("name", "image_folder", ""), Choice("path", "/nowhere", "")))
    split = {"train": count, "test": count // 5 if test is None else test}
    return Survey(layout, split, tuple((name, count // classes) for name in names), names, looks, np.arange(20))
