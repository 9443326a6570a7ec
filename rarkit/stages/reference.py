"""reference: features of the real images that samples are compared with, and of the yardsticks.

Ranks take blocks of images, the chunks of the store, in turn; whoever takes the features of a block does so in the same batches, to
the same bits. Statistics are computed later, from the features of all.

Shape letters: B batch, N images, H, W, C height, width and channels of an image, L tokens per image, F, S features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.chunk_layout import rows_per_block
from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import read_rows
from rarkit.datasets.base import Dataset
from rarkit.evaluation.metric import RECONSTRUCTIONS, TEST_IMAGES
from rarkit.features.base import FeatureExtractor, FeatureModel, LearnedState
from rarkit.features.reference_batch import ReferenceBatch
from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.randomness import derived_seed, drawn_rows
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.runtime.ranks import ALONE
from rarkit.runtime.shared_progress import shared_task
from rarkit.stages.base import STATE, Stage, View, Work, read_state, rows_left_off, write_state
from rarkit.stages.measured_images import FIDELITY, ImageSet, Originals, all_of, decoded_from, measured_rows, some_of, streamed
from rarkit.stages.shared_blocks import check_length, missing_on_all, vouch_for_all
from rarkit.stages.shown_images import SHOWN_IMAGES, SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS, shown_images, shown_rows
from rarkit.stages.tokenize import decoded
from rarkit.tokenizers.base import Tokenizer, TokenizerModel

YARDSTICK_IMAGES = 50_000
COMPARED_IMAGES = 10_000
"""Held-out images that PSNR and SSIM are of, at most: on a CPU they take longer than features on a GPU."""
MEASURED = ("features", "logits", "spatial", "labels", *FIDELITY)
"""The arrays of a set that have a row for each image."""
REAL, RECONSTRUCTED = "real", "reconstructions"
YARDSTICKS = {"test": TEST_IMAGES, RECONSTRUCTED: RECONSTRUCTIONS, "uniform": "uniform tokens"}
"""The sets measured beside the samples: prefix of their arrays, and name in the report."""


@final
class YardstickView(View):
    """What making the yardsticks reads, besides the dataset."""

    tokenizer: Tokenizer
    compared_images: int
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
    - ``reconstructions_psnr`` and ``reconstructions_ssim`` (N,) float64, infinite where a reconstruction is exact, NaN where
      it is not compared, because that is done of 10,000;
    - with yardsticks, ``shown_originals`` and ``shown_reconstructions`` (N, H, W, C) uint8;
    - the extractor's learned state.
    """

    name = "reference"
    version = 2
    is_shared = True

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
                compared_images=COMPARED_IMAGES,
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

    def left_off(self, view: ReferenceView, output: StageOutput) -> str | None:
        rows = ((name, rows_left_off(output, *arrays)) for name, arrays in _declared(output).items())
        return ", ".join(f"{name} {done}" for name, done in rows if done) or None

    def run(self, work: Work[ReferenceView]) -> None:
        view, output, ranks = work.view, work.output, work.ranks
        view.features.check_images(view.images)
        batch, held_out = view.features.reference_batch(), _held_out(work)
        sets, model = _sets(view, batch, held_out), None
        if ranks.first:
            _write_what_is_not_shared(work, batch, held_out)
            model = view.features.build(_learned(work), work.device)
            _declare(work, sets, model)
        missing = missing_on_all(work, lambda: _declared(output))
        layouts = {name: output.layout(f"{name}_features") for name in sets}
        todo = [(name, *layouts[name].block_rows(block), block) for name in sets for block in missing[name]]
        count, left = sum(images.count for images in sets.values()), sum(stop - start for _, start, stop, _ in todo)
        if model is None:
            model = view.features.build(read_state(output), work.device)
        with shared_task(ranks, work.reporter, "reference", count, "images", count - left) as advance:

            def look_and_advance(n: int) -> None:
                ranks.check()
                advance(n)

            for name, start, stop, block in todo[ranks.rank :: ranks.size]:
                values = measured_rows(model, sets[name], start, stop, look_and_advance)
                output.write_block(block, **{f"{name}_{array}": of_block for array, of_block in values.items()})
        vouch_for_all(work)
        if ranks.first:
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


def reconstruction_fidelity(output: StageOutput) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """PSNR, in dB, and SSIM of held-out images after the tokenizer: float64, one for each compared. Only with yardsticks."""
    decibels_N, similarities_N = (output.read_array(f"{RECONSTRUCTED}_{name}") for name in FIDELITY)
    is_compared_N = ~np.isnan(similarities_N)
    return decibels_N[is_compared_N], similarities_N[is_compared_N]


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


# The work of the stage


@final
@dataclass(frozen=True)
class _HeldOut:
    """The held-out images that yardsticks are made of: rows of the reader, and their tokens and labels in that order."""

    reader: ImageReader
    tokenizer: TokenizerModel
    rows_N: NDArray[np.int64]
    tokens_NL: NDArray[np.int64]
    labels_N: NDArray[np.int64]


def _held_out(work: Work[ReferenceView]) -> _HeldOut | None:
    """What yardsticks are made of, if there are any. All ranks call this together."""
    view = work.view
    if view.dataset is None or view.yardsticks is None:
        return None
    tokenized, split = work.inputs["tokenize"], view.yardsticks.held_out_split
    reader = view.dataset.open(split)
    check_length(reader, split, tokenized.layout(f"{split}_tokens").shape[0])
    rows_N = drawn_rows(view.seed, len(reader), YARDSTICK_IMAGES)
    tokens_NL, labels_N = (
        read_rows(tokenized, f"{split}_{what}", rows_N, ranks=work.ranks, reporter=work.reporter).astype(np.int64)
        for what in ("tokens", "labels")
    )
    tokenizer = view.yardsticks.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
    return _HeldOut(reader, tokenizer, rows_N, tokens_NL, labels_N)


def _sets(view: ReferenceView, batch: ReferenceBatch | None, held_out: _HeldOut | None) -> dict[str, ImageSet]:
    """The sets of images, by name. They are read when their features are taken."""
    sets, size = dict[str, ImageSet](), view.batch_size
    if batch is None and view.dataset is not None:
        sets[REAL] = all_of(view.dataset.open("train"), size)
    elif batch is not None and batch.has_images:
        sets[REAL] = streamed(partial(batch.batches, size), len(batch), size)
    if held_out is None or view.yardsticks is None:
        return sets
    if view.yardsticks.held_out_split == "test":
        sets["test"] = some_of(held_out.reader, held_out.rows_N, size)
    compared_M = drawn_rows(view.seed, len(held_out.reader), view.yardsticks.compared_images)
    originals = Originals(held_out.reader, held_out.rows_N, np.isin(held_out.rows_N, compared_M), size)
    generator = np.random.Generator(np.random.Philox(derived_seed(view.seed, "uniform tokens")))
    uniform_NL = generator.integers(0, view.yardsticks.codebook_size, held_out.tokens_NL.shape)
    for name, tokens_NL, of in ((RECONSTRUCTED, held_out.tokens_NL, originals), ("uniform", uniform_NL, None)):
        sets[name] = decoded_from(held_out.tokenizer, tokens_NL, held_out.labels_N, view.yardsticks.grid, size, of)
    return sets


def _write_what_is_not_shared(work: Work[ReferenceView], batch: ReferenceBatch | None, held_out: _HeldOut | None) -> None:
    """The statistics of a reference batch, and the images for the report."""
    view, output = work.view, work.output
    for space, (mean_F, covariance_FF) in ({} if batch is None else batch.statistics()).items():
        output.write_array(f"{REAL}_{space}_mean", mean_F)
        output.write_array(f"{REAL}_{space}_covariance", covariance_FF)
    if held_out is not None and view.yardsticks is not None:
        output.write_array(SHOWN_ORIGINALS, shown_images(view.seed, held_out.reader))
        tokens_NL = held_out.tokens_NL[np.searchsorted(held_out.rows_N, shown_rows(view.seed, held_out.reader))]
        output.write_array(SHOWN_RECONSTRUCTIONS, next(decoded(held_out.tokenizer, tokens_NL, view.yardsticks.grid, SHOWN_IMAGES)))


def _learned(work: Work[ReferenceView]) -> LearnedState:
    """What the extractor learned: in an interrupted run, which declared features only after it, or now."""
    view, output = work.view, work.output
    if not view.features.learns or view.dataset is None:
        return {}
    names = [name for name in output.begun().arrays if name.startswith(STATE)]
    if _declared(output) and not any(output.missing_blocks([name]) for name in names):
        return read_state(output)
    work.reporter.say(work.ranks.alone(f"reference: training feature extractor {view.features.name!r}"))
    learning = replace(work.learning(ALONE), part="evaluate.features")
    state = view.features.learn(view.dataset.open("train"), derived_seed(view.seed, "fit features"), learning)
    write_state(output, state)
    return state


def _declare(work: Work[ReferenceView], sets: Mapping[str, ImageSet], model: FeatureModel) -> None:
    """Creates the arrays of features and labels. A block is of whole batches; those of an interrupted run keep their size."""
    begun, size = work.output.begun().arrays, work.view.batch_size
    for name, images in sets.items():
        arrays = measured_rows(model, images, 0, 1, lambda _: None)
        widest = max(values[0].nbytes for values in arrays.values())
        known = begun.get(f"{name}_features")
        rows = known.rows if known else size * max(1, rows_per_block(images.count, widest) // size)
        for array, values in arrays.items():
            work.output.create(f"{name}_{array}", (images.count, *values.shape[1:]), values.dtype, rows)


def _declared(output: StageOutput) -> dict[str, list[str]]:
    """The arrays that have a row for each image, by set."""
    arrays, sets = output.begun().arrays, (REAL, *YARDSTICKS)
    of_sets = {name: [f"{name}_{array}" for array in MEASURED if f"{name}_{array}" in arrays] for name in sets}
    return {name: of_set for name, of_set in of_sets.items() if f"{name}_features" in of_set}
