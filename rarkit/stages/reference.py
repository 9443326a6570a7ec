"""reference: what the samples are compared with, and the yardsticks beside them, in the features that evaluation uses.

Shape letters: N images, L tokens of an image, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.features.base import FeatureModel, LearnedState
from rarkit.images import ImageReader, Split
from rarkit.randomness import derived_seed
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, model_grid, read_state, write_state
from rarkit.stages.progress import Advance
from rarkit.stages.tokenize import decoded

YARDSTICK_IMAGES = 10_000
SHOWN_IMAGES = 20
BLOCK_ROWS = 4096


@final
class Reference(Stage):
    """Images → features of ``train``, ``test``, ``reconstructions``, ``uniform`` (decoded random tokens).

    Arrays: ``<set>_features`` (N, F) float32, ``<set>_logits`` (N, C) float32, ``<set>_labels`` (N,); ``shown_originals`` and
    ``shown_reconstructions`` for the report; and what the extractor learned. Sets other than ``train`` hold at most 10,000 images.
    """

    name = "reference"

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.evaluate is not None

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        return (*(("fit",) if recipe.tokenizer.learns else ()), "tokenize")

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        assert recipe.evaluate is not None
        return {
            "seed": recipe.seed,
            "dataset": recipe.dataset.identity(),
            "tokenizer": recipe.tokenizer.identity(),
            "features": recipe.evaluate.features.identity(),
        }

    def run(self, work: Work) -> None:
        recipe, output = work.recipe, work.output
        assert recipe.evaluate is not None
        extractor, grid = recipe.evaluate.features, model_grid(recipe)
        extractor.check_images(recipe.dataset.info())
        train = recipe.dataset.open("train")
        state: LearnedState = {}
        if extractor.learns:
            work.reporter.say(f"reference: training feature extractor {extractor.name!r}")
            state = extractor.fit(train, derived_seed(recipe.seed, "fit features"))
            write_state(output, state)
        model = extractor.build(state, work.device)
        tokenizer = recipe.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
        batch = recipe.evaluate.batch_size
        split = held_out_split(recipe)
        held_out = recipe.dataset.open(split)
        count = min(len(held_out), YARDSTICK_IMAGES)
        tokens_NL = work.inputs["tokenize"].read_array(f"{split}_tokens", 0, count).astype(np.int64)
        labels_N = work.inputs["tokenize"].read_array(f"{split}_labels", 0, count).astype(np.int64)
        generator = np.random.Generator(np.random.Philox(derived_seed(recipe.seed, "uniform tokens")))
        uniform_NL = generator.integers(0, recipe.tokenizer.codebook_size(), tokens_NL.shape)
        sets = {"train": (images_of(train, 0, len(train), batch), len(train))}
        if split == "test":
            sets["test"] = images_of(held_out, 0, count, batch), count
        sets["reconstructions"] = decoded(tokenizer, tokens_NL, grid, batch), count
        sets["uniform"] = decoded(tokenizer, uniform_NL, grid, batch), count
        with work.reporter.task("reference", sum(size for _, size in sets.values()), "images") as advance:
            for name, (images, _) in sets.items():
                for key, values in features_of(model, images, advance).items():
                    output.write_array(f"{name}_{key}", values, rows=BLOCK_ROWS)
        train_labels_N = work.inputs["tokenize"].read_array("train_labels").astype(np.int64)
        output.write_array("train_labels", train_labels_N)
        for name in sets.keys() - {"train"}:
            output.write_array(f"{name}_labels", labels_N)
        shown = held_out.read(0, min(SHOWN_IMAGES, count)).images_NHWC
        output.write_array("shown_originals", shown)
        output.write_array("shown_reconstructions", next(decoded(tokenizer, tokens_NL[: len(shown)], grid, SHOWN_IMAGES)))
        output.finish(sets=list(sets))


def held_out_split(recipe: Recipe) -> Split:
    """The test images, or the training images of a dataset that has no others."""
    return "test" if "test" in recipe.dataset.splits() else "train"


def images_of(reader: ImageReader, start: int, stop: int, batch_size: int) -> Iterable[NDArray[np.uint8]]:
    """The images of a reader, in batches."""
    return (block.images_NHWC for block in reader.blocks(start, stop, batch_size))


def features_of(model: FeatureModel, images: Iterable[NDArray[np.uint8]], advance: Advance) -> dict[str, NDArray[np.float32]]:
    """``features`` (N, F) of all images, and ``logits`` (N, C) where the extractor is a classifier."""
    import torch

    features, logits = [], []
    with torch.inference_mode():
        for images_BHWC in images:
            seen = model(torch.from_numpy(images_BHWC))
            features.append(seen.features_BF.float().cpu().numpy())
            if seen.logits_BC is not None:
                logits.append(seen.logits_BC.float().cpu().numpy())
            advance(len(images_BHWC))
    found = {"features": np.concatenate(features)}
    return {**found, "logits": np.concatenate(logits)} if logits else found
