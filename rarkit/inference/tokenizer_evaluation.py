"""``rarkit tokenizer evaluate``: the same numbers of any tokenizer, on any images.

Shape letters: N images, B batch, H, W, C height, width and channels of an image, V codebook size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final, get_args

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.engine.learning import Learning
from rarkit.errors import CapabilityError, DatasetError, FewImagesError, UserError
from rarkit.evaluation.codebook_use import code_counts, use_of, use_records
from rarkit.evaluation.frechet import Moments
from rarkit.evaluation.reconstruction import compared, fidelity
from rarkit.evaluation.reconstruction_distance import distance
from rarkit.evaluation.record import MetricRecord
from rarkit.features.base import FeatureModel, LearnedState
from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.inference.tokenizer_source import open_tokenizer, recipe_of_images
from rarkit.pipeline.results import Run
from rarkit.randomness import derived_seed, drawn_rows
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import Component
from rarkit.registry.exits import exits_are_errors
from rarkit.registry.inputs import whole
from rarkit.registry.shown import shown
from rarkit.runtime.devices import resolve_device
from rarkit.runtime.progress import Reporter
from rarkit.runtime.random_state import random_state_kept
from rarkit.stages.base import read_state
from rarkit.stages.reference import COMPARED_IMAGES, YARDSTICK_IMAGES
from rarkit.stages.shown_images import SHOWN_IMAGES
from rarkit.tokenizers.base import Tokenizer
from rarkit.tokenizers.exported import Exported

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.tokenizers.base import TokenizerModel

BATCH = 64


@final
@dataclass(frozen=True)
class TokenizerEvaluation:
    """What a tokenizer leaves of some images, and how it uses its codes."""

    tokenizer: Mapping[str, Any]
    """The part's table; of ``exported`` also that of the ``part`` in its file."""
    dataset: Mapping[str, Any]
    """The table of the images: where they are from, and how they are prepared."""
    split: Split
    images: int
    """How many were measured."""
    images_in_all: int
    """How many the split has."""
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    grid: tuple[int, int]
    codebook_size: int
    metrics: tuple[MetricRecord, ...]
    lacking: tuple[str, ...]
    """What is left out and why, in a sentence each."""
    originals_NHWC: NDArray[np.uint8]
    """Some of the images, drawn at random."""
    reconstructions_NHWC: NDArray[np.uint8]
    """The same, encoded and decoded."""

    @property
    def bits_per_image(self) -> float:
        """Tokens of an image times log₂ V."""
        return math.prod(self.grid) * math.log2(self.codebook_size)

    @property
    def bits_per_pixel(self) -> float:
        return self.bits_per_image / math.prod(self.image_shape[:2])

    def __repr__(self) -> str:
        numbers = ", ".join(f"{metric.name}={metric.value:.4g}" for metric in self.metrics)
        return f"TokenizerEvaluation({self.tokenizer['name']!r} on {self.images:,} {self.split} images: {numbers})"


@exits_are_errors()
@random_state_kept()
def evaluate_tokenizer(
    source: Run | str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    images: int = YARDSTICK_IMAGES,
    overrides: Sequence[str] = (),
    store: str | os.PathLike[str] | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> TokenizerEvaluation:
    """Encodes and decodes images, and measures what is left of them.

    Images are read, measured and let go in batches. Which of them are drawn depends on the seed and their number alone.

    Args:
        source: a run, or its folder; path or URL of a recipe, whose tokenizer is trained, of a bundle, or of a tokenizer's file.
        data: path or URL of the recipe, or name of the dataset, whose images are measured; None for the source's own.
            The features in which distances are measured are those of that recipe's ``[evaluate]``.
        split: ``"train"`` or ``"test"``; None for ``"test"``, if the dataset has it.
        images: the most images to measure.
        overrides: changes of the data's recipe, such as ``"dataset.size=64"`` or ``"evaluate.features.name=inception"``.
        store: where the store of a run or a recipe is.
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` uses CUDA or MPS if available.
        quiet: show no progress on stderr.

    Raises:
        UserError: there is no such source or split, or a source without images was given none.
        WeightsError: the tokenizer was not trained yet, or a file is missing or damaged.
        GridError: the tokenizer, or the feature extractor, does not take these images.
        DatasetError: images are missing or damaged.
    """
    images = whole("images", images, lowest=1)
    device, reporter = resolve_device(device, draws=True), Reporter(quiet=quiet)
    opened = open_tokenizer(source, store)
    recipe = recipe_of_images(opened, None if data is None else os.fspath(data), overrides)
    tokenizer, info = opened.tokenizer, recipe.dataset.info()
    chosen, grid = _split(recipe, split), tokenizer.grid(info)
    reader = _reader(recipe, chosen)
    rows_N = drawn_rows(recipe.seed, len(reader), images)
    model, extractor = _built(tokenizer, opened.state, device), _extractor(recipe, info, opened.outputs, device, reporter)
    shown_N = rows_N[drawn_rows(recipe.seed, len(rows_N), SHOWN_IMAGES)]
    measured = _Measured(tokenizer, model, extractor, shown_N, drawn_rows(recipe.seed, len(reader), COMPARED_IMAGES))
    measured.add_all(reader, rows_N, reporter)
    metrics, lacking = measured.records(recipe, f"images of the split {chosen!r}", len(rows_N))
    return TokenizerEvaluation(
        tokenizer=_table(tokenizer),
        dataset=recipe.dataset.model_dump(mode="json"),
        split=chosen,
        images=len(rows_N),
        images_in_all=len(reader),
        image_shape=(info.height, info.width, info.channels),
        grid=grid,
        codebook_size=tokenizer.codebook_size(),
        metrics=tuple(metrics),
        lacking=tuple(lacking),
        originals_NHWC=np.concatenate(measured.originals),
        reconstructions_NHWC=np.concatenate(measured.reconstructions),
    )


def _built(tokenizer: Tokenizer, state: LearnedState, device: str) -> TokenizerModel:
    import torch

    _check_usable("tokenizer", tokenizer, device)
    with torch.inference_mode():
        return tokenizer.build(state, device)


def _check_usable(table: str, part: Component, device: str) -> None:
    if reason := part.capability(device, "float32"):
        raise CapabilityError(f"[{table}] {part.name!r} cannot be used here: {reason}")


def _table(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer's table; of one in a file with that of the part in it."""
    inner = {"part": tokenizer.part().model_dump(mode="json")} if isinstance(tokenizer, Exported) else {}
    return {**tokenizer.model_dump(mode="json"), **inner}


def _split(recipe: Recipe, split: str | None) -> Split:
    splits = recipe.dataset.splits()
    if split is None:
        return "test" if "test" in splits else "train"
    known: Mapping[str, Split] = {name: name for name in get_args(Split) if name in splits}
    if split not in known:
        raise UserError(f"dataset {recipe.dataset.name!r} has no split {shown(split)}. It has: {', '.join(known)}.")
    return known[split]


def _reader(recipe: Recipe, split: Split) -> ImageReader:
    reader = recipe.dataset.open(split)
    if not len(reader):
        raise DatasetError(f"the split {split!r} has no images. Measure another one.")
    return reader


def _extractor(
    recipe: Recipe, info: ImageInfo, outputs: Mapping[str, StageOutput], device: str, reporter: Reporter
) -> FeatureModel | None:
    """The recipe's feature extractor; if it learns, as it was trained in the run, or else trained now."""
    if recipe.evaluate is None:
        return None
    features, state = recipe.evaluate.features, dict[str, NDArray[Any]]()
    features.check_images(info)
    _check_usable("evaluate.features", features, device)
    if features.learns:
        state = dict(_learned(recipe, outputs) or {})
        if not state:
            reporter.say(f"training feature extractor {features.name!r}, in which distances are measured")
            seed = derived_seed(recipe.seed, "fit features")
            state = dict(features.learn(recipe.dataset.open("train"), seed, Learning(device=device, reporter=reporter)))
    return features.build(state, device)


def _learned(recipe: Recipe, outputs: Mapping[str, StageOutput]) -> LearnedState | None:
    """What the same extractor learned of the same images in a run; None if there is none."""
    if "reference" not in outputs or recipe.evaluate is None:
        return None
    made_of = outputs["reference"].begun().identity
    asked = {"seed": recipe.seed, "features": recipe.evaluate.features.identity(), "dataset": recipe.dataset.identity()}
    return read_state(outputs["reference"]) if all(made_of.get(key, 0) == value for key, value in asked.items()) else None


@final
class _Measured:
    """What is kept of the images that were measured: some numbers for each, counts of codes, moments of features."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: TokenizerModel,
        extractor: FeatureModel | None,
        shown_N: NDArray[np.int64],
        compared_N: NDArray[np.int64],
    ) -> None:
        """``shown_N`` and ``compared_N`` are rows of the split: of what is shown, and of what PSNR and SSIM are of."""
        self._model, self._extractor, self._shown_N, self._compared_N = model, extractor, shown_N, compared_N
        self._counts_V = np.zeros(tokenizer.codebook_size(), np.int64)
        self._decibels: list[NDArray[np.float64]] = []
        self._similarities: list[NDArray[np.float64]] = []
        self._moments = Moments(), Moments()
        self.originals: list[NDArray[np.uint8]] = []
        self.reconstructions: list[NDArray[np.uint8]] = []

    def add_all(self, reader: ImageReader, rows_N: NDArray[np.int64], reporter: Reporter) -> None:
        """Measures some rows of a reader."""
        import torch

        with reporter.task("evaluate tokenizer", len(rows_N), "images") as advance, torch.inference_mode():
            start = 0
            for block in reader.chosen(rows_N, BATCH):
                end = start + len(block.labels_N)
                self.add(block.images_NHWC, rows_N[start:end])
                advance(end - start)
                start = end

    def add(self, images_BHWC: NDArray[np.uint8], rows_B: NDArray[np.int64]) -> None:
        """Measures some images; ``rows_B`` are their numbers in the split."""
        import torch

        # Torch has no read-only tensors.
        tensor_BHWC = torch.from_numpy(np.require(images_BHWC, requirements="W"))
        codes_BHW = self._model.encode(tensor_BHWC)
        decoded = self._model.decode(codes_BHW)
        self._counts_V += code_counts(codes_BHW.cpu().numpy(), len(self._counts_V))
        decoded_BHWC = decoded.cpu().numpy()
        is_compared = np.isin(rows_B, self._compared_N)
        if is_compared.any():
            values = compared(images_BHWC[is_compared], decoded_BHWC[is_compared])
            for kept, values_B in zip((self._decibels, self._similarities), values, strict=True):
                kept.append(values_B)
        if self._extractor is not None:
            for moments, images in zip(self._moments, (tensor_BHWC, decoded), strict=True):
                moments.add(_features(self._extractor, images))
        is_shown = np.isin(rows_B, self._shown_N)
        self.originals.append(images_BHWC[is_shown])
        self.reconstructions.append(decoded_BHWC[is_shown])

    def records(self, recipe: Recipe, images: str, count: int) -> tuple[list[MetricRecord], list[str]]:
        """The numbers, and what is left out; explanations say of which images, and how many."""
        records, which = fidelity(np.concatenate(self._decibels), np.concatenate(self._similarities), images), f"{count:,} {images}"
        use = use_records(use_of(self._counts_V), which)
        if recipe.evaluate is None:
            why = "the recipe has no [evaluate]. --set evaluate.features.name=classifier measures them in that extractor's features"
            return [*records, *use], [f"Distances in features are left out: {why}."]
        try:
            original, decoded = (moments.gaussian() for moments in self._moments)
        except FewImagesError as error:
            return [*records, *use], [f"Distances in features are left out: {error}"]
        return [*records, distance(original, decoded, recipe.evaluate.features, which), *use], []


def _features(extractor: FeatureModel, images_BHWC: Tensor) -> NDArray[np.float32]:
    features_BF: NDArray[np.float32] = extractor(images_BHWC).features_BF.float().cpu().numpy()
    return features_BF
