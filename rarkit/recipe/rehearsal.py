"""Rehearsals: the same recipe on generated images, with a small model and few steps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from rarkit.datasets.generated import Generated
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RarkitWarning
from rarkit.images import ImageInfo
from rarkit.recipe.classes import LABEL
from rarkit.recipe.schema import Recipe

STEPS, BATCH, SAMPLES = 4, 2, 4
IMAGES, LARGE_IMAGES = 64, 4
"""Training images: few if they are large, enough for a tokenizer to be fitted if they are small."""


def rehearsal(recipe: Recipe, device: str) -> Recipe:
    """The same stages and parts, small: generated images of the same size and classes, few layers, steps and samples.

    Its numbers mean nothing, and its title says that it is a rehearsal. If the recipe samples from a checkpoint, the caller
    replaces ``model.weights`` by one that fits the small model.

    On a device that only emulates bfloat16 it trains in float32, and warns that it does.

    Raises:
        DatasetError: size and classes of the images cannot be determined without the data.
    """
    info = recipe.dataset.info()
    labels = np.unique(np.linspace(0, info.num_classes - 1, SAMPLES).round().astype(int))
    changes: dict[str, Any] = {
        "title": f"Rehearsal: {recipe.title}",
        "dataset": Generated(
            height=info.height,
            width=info.width,
            channels=3 if info.channels == 3 else 1,
            class_names=info.class_names,
            train_images=_images(recipe, info),
            test_images=LARGE_IMAGES,
        ),
        "tokenizer": recipe.tokenizer.rehearsed(),
        "model": recipe.model.rehearsed(),
        "trackers": tuple(tracker.rehearsed() for tracker in recipe.trackers),
    }
    if recipe.train is not None:
        changes["train"] = _quick(recipe.train, device)
    if recipe.sample is not None:
        classes = tuple(f"{LABEL}{label}" for label in labels)
        changes["sample"] = recipe.sample.model_copy(update={"per_class": 1, "classes": classes, "batch_size": SAMPLES})
    if recipe.evaluate is not None:
        changes["evaluate"] = recipe.evaluate.model_copy(update={"features": recipe.evaluate.features.rehearsed(), "bootstrap": 0})
    return recipe.model_copy(update=changes).named(
        f"{recipe.recipe_name}-rehearsal", f"{recipe.command} --rehearse", rehearsal=True
    )


def _images(recipe: Recipe, info: ImageInfo) -> int:
    """How many training images are generated."""
    if info.height * info.width > 64 * 64:
        return LARGE_IMAGES
    if not recipe.tokenizer.learns:
        return IMAGES
    rows, columns = recipe.tokenizer.grid(info)
    # Some of which may be held back, and of whose patches not all differ.
    return max(IMAGES, 4 * recipe.tokenizer.codebook_size() // (rows * columns))


def _quick(train: TrainSettings, device: str) -> TrainSettings:
    from torch import device as torch_device

    from rarkit.runtime.processors import lacks_bfloat16

    changes: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": BATCH,
        "tokens": None,
        "init_from": None,
        "compile": False,
        "micro_batch_size": None,
        "shard": None,
        "replicate": None,
        "warmup_steps": 1,
        "decay_steps": None if train.decay_steps is None else 1,
        "checkpoint_every": 2,
        "keep_every": None,
        "evaluate_every": None if train.evaluate_every is None else STEPS,
        "preview_every": None if train.preview_every is None else STEPS,
    }
    if train.precision == "bfloat16" and lacks_bfloat16(torch_device(device)):
        message = "this processor has no instructions for bfloat16 (AVX-512): the rehearsal trains in float32 instead."
        warnings.warn(message, RarkitWarning, stacklevel=3)
        changes["precision"] = "float32"
    return train.model_copy(update=changes)
