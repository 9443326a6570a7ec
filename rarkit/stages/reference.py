"""reference: features of the real images that samples are compared with, and of the yardsticks.

Shape letters: B batch, N images, H, W, C height, width and channels of an image, L tokens per image, F, S features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import read_rows
from rarkit.datasets.base import Dataset
from rarkit.features.base import FeatureExtractor, FeatureModel, LearnedState
from rarkit.images import ImageBlock, ImageInfo, Split
from rarkit.randomness import derived_seed, drawn_rows
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.runtime.progress import Advance
from rarkit.runtime.ranks import ALONE
from rarkit.stages.base import Stage, View, Work, read_state, write_state
from rarkit.stages.tokenize import decoded
from rarkit.tokenizers.base import Tokenizer

YARDSTICK_IMAGES = 50_000
SHOWN_IMAGES = 20
BLOCK_ROWS = 4096
REAL = "real"
YARDSTICKS = {"test": "real test images", "reconstructions": "reconstructions", "uniform": "uniform tokens"}
"""The sets measured beside the samples: prefix of their arrays, and name in the report."""
SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS = "shown_originals", "shown_reconstructions"
Sets = dict[str, tuple[Iterable[NDArray[np.uint8]], int]]
"""By name: batches of images, and the number of images."""


@final
class YardstickView(View):
    """What making the yardsticks reads, besides the dataset."""

    tokenizer: Tokenizer
    # Dataset and tokenizer determine the rest.
    grid: Annotated[Grid, NotInFingerprint()]
    codebook_size: Annotated[int, NotInFingerprint()]
    held_out_split: Annotated[Split, NotInFingerprint()]


@final
class ReferenceView(View):
    """What ``reference`` reads."""

    seed: int = 0
    """Decides the extractor's training, which images are drawn, and the uniform tokens; 0 if there is none of these."""
    features: FeatureExtractor
    batch_size: Annotated[int, NotInFingerprint(tolerance=1e-4)]
    images: Annotated[ImageInfo, NotInFingerprint()]
    """Only checked against what the extractor takes."""
    dataset: Dataset | None = None
    """None if no image of it is read."""
    yardsticks: YardstickView | None = None


@final
class Reference(Stage[ReferenceView]):
    """Images → features of the ``real`` set, and with yardsticks of ``test``, ``reconstructions`` and ``uniform`` (random tokens).

    Real images are the training images, or the extractor's own reference batch. A yardstick has at most 50,000 images, drawn from
    all held-out ones. Arrays:

    - ``<set>_features`` (N, F) float32, and if the extractor has them ``<set>_logits`` (N, K) and ``<set>_spatial`` (N, S), except
      of a reference batch without images;
    - ``<set>_labels`` (N,) int64, except of a reference batch;
    - ``real_features_mean`` and ``real_features_covariance`` (the same for ``spatial``), float64, if the reference batch has them;
    - with yardsticks, ``shown_originals`` and ``shown_reconstructions`` (N, H, W, C) uint8;
    - the extractor's learned state.
    """

    name = "reference"
    version = 2

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        if recipe.evaluate is None:
            return None
        if not recipe.evaluate.yardsticks:
            return ()
        return (*(("fit",) if recipe.tokenizer.learns else ()), "tokenize")

    def view(self, experiment: Experiment) -> ReferenceView | None:
        recipe = experiment.recipe
        if recipe.evaluate is None:
            return None
        yardsticks = None
        if recipe.evaluate.yardsticks:
            yardsticks = YardstickView(
                tokenizer=recipe.tokenizer,
                grid=experiment.grid,
                codebook_size=experiment.codebook_size,
                held_out_split=experiment.held_out_split,
            )
        features = recipe.evaluate.features
        return ReferenceView(
            seed=recipe.seed if features.learns or yardsticks else 0,
            features=features,
            batch_size=recipe.evaluate.batch_size,
            images=experiment.images,
            dataset=recipe.dataset if opens_data(recipe) else None,
            yardsticks=yardsticks,
        )

    def run(self, work: Work[ReferenceView]) -> None:
        view, output = work.view, work.output
        view.features.check_images(view.images)
        batch = view.features.reference_batch()
        state: LearnedState = {}
        sets: Sets = {}
        real_labels: list[NDArray[np.int64]] = []
        if batch is not None:
            if batch.has_images:
                sets[REAL] = batch.batches(view.batch_size), len(batch)
            for space, (mean_F, covariance_FF) in batch.statistics().items():
                output.write_array(f"{REAL}_{space}_mean", mean_F)
                output.write_array(f"{REAL}_{space}_covariance", covariance_FF)
        if view.dataset is not None:
            if view.features.learns:
                work.reporter.say(f"reference: training feature extractor {view.features.name!r}")
                seed = derived_seed(view.seed, "fit features")
                state = view.features.learn(view.dataset.open("train"), seed, work.learning(ALONE))
                write_state(output, state)
            if batch is None:
                train = view.dataset.open("train")
                sets[REAL] = _images(train.blocks(0, len(train), view.batch_size), real_labels), len(train)
            if view.yardsticks is not None:
                sets |= _yardstick_sets(work, view.dataset, view.yardsticks)
        model = view.features.build(state, work.device)
        with work.reporter.task("reference", sum(size for _, size in sets.values()), "images") as advance:
            for name, (images, _) in sets.items():
                for array, values in features_of(model, images, advance).items():
                    output.write_array(f"{name}_{array}", values, rows=BLOCK_ROWS)
        if real_labels:
            output.write_array(f"{REAL}_labels", np.concatenate(real_labels))
        output.finish(sets=list(dict.fromkeys([REAL, *sets])))
        work.remove_checkpoints()


def opens_data(recipe: Recipe) -> bool:
    """Whether a recipe's reference stage reads images of the dataset."""
    if recipe.evaluate is None:
        return False
    features = recipe.evaluate.features
    return recipe.evaluate.yardsticks or features.learns or features.reference_batch() is None


def image_sets(output: StageOutput) -> dict[str, Mapping[str, NDArray[Any]]]:
    """By set (real images and yardsticks), its arrays by their name without the prefix; each is read when looked up."""
    record = output.begun()
    return {name: _StoredSet(output, f"{name}_", frozenset(record.arrays)) for name in record.sets}


@final
class _StoredSet(Mapping[str, NDArray[Any]]):
    def __init__(self, output: StageOutput, prefix: str, arrays: frozenset[str]) -> None:
        self._output, self._prefix = output, prefix
        self._names = [array.removeprefix(prefix) for array in sorted(arrays) if array.startswith(prefix)]

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return self._output.read_array(f"{self._prefix}{name}")

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _yardstick_sets(work: Work[ReferenceView], dataset: Dataset, yardsticks: YardstickView) -> Sets:
    """The yardsticks' images, read lazily. Their labels and the images for the report are written right away."""
    output, tokenized, batch_size, split = work.output, work.inputs["tokenize"], work.view.batch_size, yardsticks.held_out_split
    tokenizer = yardsticks.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
    held_out = dataset.open(split)
    rows_N = drawn_rows(work.view.seed, len(held_out), YARDSTICK_IMAGES)
    tokens_NL, labels_N = (read_rows(tokenized, f"{split}_{what}", rows_N).astype(np.int64) for what in ("tokens", "labels"))
    count = len(rows_N)
    generator = np.random.Generator(np.random.Philox(derived_seed(work.view.seed, "uniform tokens")))
    uniform_NL = generator.integers(0, yardsticks.codebook_size, tokens_NL.shape)
    sets: Sets = {"test": (_images(held_out.chosen(rows_N, batch_size)), count)} if split == "test" else {}
    sets["reconstructions"] = decoded(tokenizer, tokens_NL, yardsticks.grid, batch_size), count
    sets["uniform"] = decoded(tokenizer, uniform_NL, yardsticks.grid, batch_size), count
    for name in sets:
        output.write_array(f"{name}_labels", labels_N)
    shown_N = drawn_rows(work.view.seed, len(held_out), SHOWN_IMAGES)
    output.write_array(SHOWN_ORIGINALS, next(held_out.chosen(shown_N, SHOWN_IMAGES)).images_NHWC)
    shown_tokens_NL = tokens_NL[np.searchsorted(rows_N, shown_N)]
    output.write_array(SHOWN_RECONSTRUCTIONS, next(decoded(tokenizer, shown_tokens_NL, yardsticks.grid, SHOWN_IMAGES)))
    return sets


def _images(blocks: Iterator[ImageBlock], labels: list[NDArray[np.int64]] | None = None) -> Iterator[NDArray[np.uint8]]:
    """The images of blocks, (B, H, W, C) uint8; their labels are appended to ``labels``."""
    for block in blocks:
        if labels is not None:
            labels.append(block.labels_N)
        yield block.images_NHWC


def features_of(model: FeatureModel, images: Iterable[NDArray[np.uint8]], advance: Advance) -> dict[str, NDArray[np.float32]]:
    """``features`` (N, F) of all images, and if the extractor has them ``logits`` (N, K) and ``spatial`` (N, S)."""
    import torch

    batches: dict[str, list[NDArray[np.float32]]] = {}
    with torch.inference_mode():
        for images_BHWC in images:
            # Torch has no read-only tensors, so images of a memory-mapped store are copied.
            batch = model(torch.from_numpy(np.require(images_BHWC, requirements="W")))
            for name, values in (("features", batch.features_BF), ("logits", batch.logits_BC), ("spatial", batch.spatial_BS)):
                if values is not None:
                    batches.setdefault(name, []).append(values.float().cpu().numpy())
            advance(len(images_BHWC))
    return {name: np.concatenate(parts) for name, parts in batches.items()}
