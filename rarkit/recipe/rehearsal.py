"""Rehearsals: a recipe made small, on stand-ins for what is not at hand, with its shape and its parts kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from rarkit.datasets.generated import Generated
from rarkit.recipe.schema import Recipe

STEPS, BATCH, SAMPLES = 4, 2, 8
IMAGES, LARGE_IMAGES = 64, 4
"""Images to train on: few of large ones, but enough of small ones for a tokenizer to learn from."""


def rehearsal(recipe: Recipe) -> Recipe:
    """The same stages and parts on stand-ins: generated images of the right size and classes, few layers, steps and samples.

    What it gives means nothing, and says so. A checkpoint that the recipe samples from has to be replaced by the caller
    (``model.weights``), since only a model can make one.

    Raises:
        DatasetError: size and classes of the images are not known without the data.
    """
    info = recipe.dataset.info()
    classes = np.unique(np.linspace(0, info.num_classes - 1, SAMPLES).round().astype(int)).tolist()
    changes: dict[str, Any] = {
        "title": f"Rehearsal: {recipe.title}",
        "dataset": Generated(
            height=info.height,
            width=info.width,
            channels=3 if info.channels == 3 else 1,
            class_names=info.class_names,
            train_images=LARGE_IMAGES if info.height * info.width > 64 * 64 else IMAGES,
            test_images=LARGE_IMAGES,
        ),
        "tokenizer": recipe.tokenizer.rehearsed(),
        "model": recipe.model.rehearsed(),
    }
    if recipe.train is not None:
        quick = {
            "steps": STEPS,
            "batch_size": BATCH,
            "tokens": None,
            "compile": False,
            "micro_batch_size": None,
            "warmup_steps": 1,
            "checkpoint_every": 2,
        }
        changes["train"] = recipe.train.model_copy(update=quick)
    if recipe.sample is not None:
        changes["sample"] = recipe.sample.model_copy(update={"per_class": 1, "classes": tuple(classes), "batch_size": SAMPLES})
    if recipe.evaluate is not None:
        changes["evaluate"] = recipe.evaluate.model_copy(update={"features": recipe.evaluate.features.rehearsed(), "bootstrap": 0})
    return recipe.model_copy(update=changes).named(
        f"{recipe.recipe_name}-rehearsal", f"{recipe.command} --rehearse", rehearsal=True
    )
