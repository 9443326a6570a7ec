"""reference: what the samples are compared with, and the yardsticks beside them, in the features that evaluation uses.

Shape letters: N images, L tokens of an image, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.features.base import FeatureModel, LearnedState
from rarkit.images import ImageReader, Split
from rarkit.randomness import derived_seed
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, model_grid, read_state, write_state
from rarkit.runtime.progress import Advance
from rarkit.stages.tokenize import decoded

YARDSTICK_IMAGES = 50_000
SHOWN_IMAGES = 20
BLOCK_ROWS = 4096
REAL, LABELS, MEAN, COVARIANCE = "real", "labels", "mean", "covariance"
Sets = dict[str, tuple[Iterable[NDArray[np.uint8]], int]]
"""Batches of images, and how many images these are, by name."""


@final
class Reference(Stage):
    """Images → features of ``real`` ones, and with yardsticks of ``test``, ``reconstructions``, ``uniform`` (random tokens).

    Real ones are the training images, or the extractor's own reference batch. Arrays, in float32: ``<set>_features`` (N, F), and
    where the extractor gives them ``<set>_logits`` (N, C) and ``<set>_spatial``; ``<set>_labels`` (N,) unless it is a reference
    batch; ``real_features_mean`` and ``real_features_covariance`` (and of ``spatial``) where that brings statistics of its own;
    with yardsticks ``shown_originals`` and ``shown_reconstructions`` for the report; and what the extractor learned. Yardsticks
    are of at most 50,000 images.
    """

    name = "reference"

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.evaluate is not None

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        assert recipe.evaluate is not None
        if not recipe.evaluate.yardsticks:
            return ()
        return (*(("fit",) if recipe.tokenizer.learns else ()), "tokenize")

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        assert recipe.evaluate is not None
        features, yardsticks = recipe.evaluate.features, recipe.evaluate.yardsticks
        identity = {"seed": recipe.seed, "features": features.identity(), "yardsticks": yardsticks}
        if opens_data(recipe):
            identity["dataset"] = recipe.dataset.identity()
        if yardsticks:
            identity["tokenizer"] = recipe.tokenizer.identity()
        return identity

    def run(self, work: Work) -> None:
        recipe, output = work.recipe, work.output
        assert recipe.evaluate is not None
        extractor, batch = recipe.evaluate.features, recipe.evaluate.batch_size
        extractor.check_images(recipe.dataset.info())
        state: LearnedState = {}
        if extractor.learns:
            work.reporter.say(f"reference: training feature extractor {extractor.name!r}")
            state = extractor.fit(recipe.dataset.open("train"), derived_seed(recipe.seed, "fit features"))
            write_state(output, state)
        given = extractor.reference_batch()
        if given is not None:
            sets: Sets = {REAL: (given.batches(batch), len(given))}
            for what, (mean_F, covariance_FF) in given.statistics().items():
                output.write_array(f"{REAL}_{what}_{MEAN}", mean_F)
                output.write_array(f"{REAL}_{what}_{COVARIANCE}", covariance_FF)
        else:
            train, labels = recipe.dataset.open("train"), list[NDArray[np.int64]]()
            sets = {REAL: (images_of(train, 0, len(train), batch, labels), len(train))}
        if recipe.evaluate.yardsticks:
            sets |= _yardsticks(work)
        model = extractor.build(state, work.device)
        with work.reporter.task("reference", sum(size for _, size in sets.values()), "images") as advance:
            for name, (images, _) in sets.items():
                for key, values in features_of(model, images, advance).items():
                    output.write_array(f"{name}_{key}", values, rows=BLOCK_ROWS)
        if given is None:
            output.write_array(f"{REAL}_{LABELS}", np.concatenate(labels))
        output.finish(sets=list(sets))


def opens_data(recipe: Recipe) -> bool:
    """Whether the reference of a recipe is made from the dataset's own images."""
    assert recipe.evaluate is not None
    return recipe.evaluate.yardsticks or recipe.evaluate.features.reference_batch() is None


def _yardsticks(work: Work) -> Sets:
    """The sets beside the samples, whose labels are written already, and the images to show."""
    recipe, output, tokenized = work.recipe, work.output, work.inputs["tokenize"]
    assert recipe.evaluate is not None
    grid, batch, split = model_grid(recipe), recipe.evaluate.batch_size, held_out_split(recipe)
    tokenizer = recipe.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
    held_out = recipe.dataset.open(split)
    count = min(len(held_out), YARDSTICK_IMAGES)
    tokens_NL = tokenized.read_array(f"{split}_tokens", 0, count).astype(np.int64)
    labels_N = tokenized.read_array(f"{split}_labels", 0, count).astype(np.int64)
    generator = np.random.Generator(np.random.Philox(derived_seed(recipe.seed, "uniform tokens")))
    uniform_NL = generator.integers(0, recipe.tokenizer.codebook_size(), tokens_NL.shape)
    sets: Sets = {"test": (images_of(held_out, 0, count, batch), count)} if split == "test" else {}
    sets["reconstructions"] = decoded(tokenizer, tokens_NL, grid, batch), count
    sets["uniform"] = decoded(tokenizer, uniform_NL, grid, batch), count
    for name in sets:
        output.write_array(f"{name}_{LABELS}", labels_N)
    shown = held_out.read(0, min(SHOWN_IMAGES, count)).images_NHWC
    output.write_array("shown_originals", shown)
    output.write_array("shown_reconstructions", next(decoded(tokenizer, tokens_NL[: len(shown)], grid, SHOWN_IMAGES)))
    return sets


def held_out_split(recipe: Recipe) -> Split:
    """The test images, or the training images of a dataset that has no others."""
    return "test" if "test" in recipe.dataset.splits() else "train"


def images_of(
    reader: ImageReader, start: int, stop: int, batch_size: int, labels: list[NDArray[np.int64]] | None = None
) -> Iterator[NDArray[np.uint8]]:
    """The images of a reader, in batches; their labels are appended to ``labels``."""
    for block in reader.blocks(start, stop, batch_size):
        if labels is not None:
            labels.append(block.labels_N)
        yield block.images_NHWC


def features_of(model: FeatureModel, images: Iterable[NDArray[np.uint8]], advance: Advance) -> dict[str, NDArray[np.float32]]:
    """``features`` (N, F) of all images; ``logits`` (N, C) and ``spatial`` (N, S) where the extractor gives such."""
    import torch

    found: dict[str, list[NDArray[np.float32]]] = {}
    with torch.inference_mode():
        for images_BHWC in images:
            # A copy where they may not be written to, as those of a mapped store: torch knows no such tensors.
            seen = model(torch.from_numpy(np.require(images_BHWC, requirements="W")))
            for name, values in (("features", seen.features_BF), ("logits", seen.logits_BC), ("spatial", seen.spatial_BS)):
                if values is not None:
                    found.setdefault(name, []).append(values.float().cpu().numpy())
            advance(len(images_BHWC))
    return {name: np.concatenate(parts) for name, parts in found.items()}
