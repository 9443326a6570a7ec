"""evaluate: metrics of the samples and of the yardsticks.

Shape letters: N images, L tokens per image, S sets of images, V codebook size.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import read_rows
from rarkit.datasets.base import Dataset
from rarkit.errors import IncompleteError
from rarkit.evaluation.codebook_use import code_counts
from rarkit.evaluation.metric import Evaluation, TokenizedData, TokenSet
from rarkit.evaluation.metrics import METRICS, measure
from rarkit.evaluation.record import MetricRecord
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.files.stored_json import Text, read_json
from rarkit.images import Split
from rarkit.randomness import drawn_rows
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.scan_orders.base import ScanOrder
from rarkit.stages.base import Stage, View, Work, read_state
from rarkit.stages.measured_images import features_of
from rarkit.stages.nearest_training_images import Nearest, Search, write_nearest
from rarkit.stages.reference import (
    REAL,
    YARDSTICKS,
    image_sets,
)
from rarkit.stages.sample import ModelSource, sampling_model
from rarkit.stages.shown_images import SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS

if TYPE_CHECKING:
    from rarkit.models.image_model import ImageModel

METRICS_FILE = "metrics.json"
CODE_COUNTS = "code_counts"
"""The array with how often each code occurs, (S, V) int64: in training images and, if there are any, in held-out ones."""
MEASURED_IMAGES = 10_000
BLOCK_ROWS = 4096
LIKELIHOOD_BATCH = 256


@final
class TokenizedView(View):
    """What evaluating model and tokenizer on the dataset's tokens reads, besides upstream outputs."""

    source: ModelSource
    # Upstream outputs determine it.
    dataset: Annotated[Dataset, NotInFingerprint()]
    scan_order: ScanOrder
    grid: Annotated[Grid, NotInFingerprint()]
    codebook_size: Annotated[int, NotInFingerprint()]
    held_out_split: Annotated[Split, NotInFingerprint()]


@final
class _Numbers(BaseModel):
    """What ``metrics.json`` says, in the stage's output."""

    model_config = ConfigDict(strict=True)

    metrics: Annotated[tuple[MetricRecord, ...], Field(max_length=1000)]
    lacking: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()
    nearest: Nearest | None = None


@final
class EvaluateView(View):
    """What ``evaluate`` reads."""

    seed: int
    evaluate: EvaluateSettings
    metrics: dict[str, int]
    """Version of each metric by name, so that a new metric is measured on earlier runs too."""
    tokenized: TokenizedView | None = None
    """None if there are no yardsticks."""


@final
class Evaluate(Stage[EvaluateView]):
    """Samples and reference → ``metrics.json``, the features of the samples and, with yardsticks, the nearest training images and
    how often each code occurs."""

    name = "evaluate"
    version = 2

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        if recipe.evaluate is None:
            return None
        if not recipe.evaluate.yardsticks:
            return ("sample", "reference")
        return (*(("train",) if recipe.train is not None else ()), "tokenize", "sample", "reference")

    def view(self, experiment: Experiment) -> EvaluateView | None:
        recipe, source = experiment.recipe, ModelSource.of(experiment)
        if recipe.evaluate is None or source is None:
            return None
        tokenized = None
        if recipe.evaluate.yardsticks:
            tokenized = TokenizedView(
                source=source,
                dataset=recipe.dataset,
                scan_order=recipe.scan_order,
                grid=experiment.grid,
                codebook_size=experiment.codebook_size,
                held_out_split=experiment.held_out_split,
            )
        return EvaluateView(
            seed=recipe.seed,
            evaluate=recipe.evaluate,
            metrics={metric.name: metric.version for metric in METRICS},
            tokenized=tokenized,
        )

    def run(self, work: Work[EvaluateView]) -> None:
        settings, output = work.view.evaluate, work.output
        samples, reference = work.inputs["sample"], work.inputs["reference"]
        extractor = settings.features.build(read_state(reference), work.device)
        layout = samples.layout("images")
        blocks = (samples.read_array("images", *layout.block_rows(block)) for block in range(layout.blocks))
        with work.reporter.task("evaluate", layout.shape[0], "images") as advance:
            seen = features_of(extractor, blocks, advance)
        for name, values in seen.items():
            output.write_array(name, values, rows=BLOCK_ROWS)
        sets = image_sets(reference)
        tokenized = None if work.view.tokenized is None else _tokenized(work, work.view.tokenized)
        if tokenized is not None:
            output.write_array(CODE_COUNTS, _code_counts(tokenized))
        evaluation = Evaluation(
            samples={**seen, "labels": samples.read_array("labels").astype(np.int64)},
            real=sets[REAL],
            yardsticks={label: sets[name] for name, label in YARDSTICKS.items() if name in sets},
            extractor=settings.features,
            tokenized=tokenized,
            seed=work.view.seed,
            resamplings=settings.bootstrap,
        )
        records, lacking = measure(METRICS, evaluation)
        numbers: dict[str, Any] = {
            "metrics": [record.to_json() for record in records],
            "lacking": lacking,
            "samples": layout.shape[0],
        }
        if work.view.tokenized is not None:
            search = Search(
                samples=samples,
                tokens=work.inputs["tokenize"],
                reference=reference,
                dataset=work.view.tokenized.dataset,
                held_out_split=work.view.tokenized.held_out_split,
                extractor=settings.features,
                model=extractor,
                seed=work.view.seed,
            )
            numbers["nearest"] = write_nearest(search, seen["features"], output).model_dump()
        output.write_file(METRICS_FILE, json.dumps(numbers, indent=2).encode())
        output.finish([METRICS_FILE])


def nearest_images(output: StageOutput) -> Nearest | None:
    """What ``write_nearest`` returned; None if the recipe has no yardsticks. Raises IncompleteError if it is damaged."""
    return _numbers(output).nearest


def measured(output: StageOutput) -> tuple[list[MetricRecord], list[str]]:
    """The metrics in the stage's output, and what the reference batch could not be used for, in a sentence each.

    Raises:
        IncompleteError: they are damaged.
    """
    numbers = _numbers(output)
    return list(numbers.metrics), list(numbers.lacking)


def _numbers(output: StageOutput) -> _Numbers:
    data = output.read_file(METRICS_FILE)
    return read_json(_Numbers, data, f"{METRICS_FILE} of {output}", output.cure, raising=IncompleteError)


def _tokenized(work: Work[EvaluateView], view: TokenizedView) -> TokenizedData:
    tokens, reference = work.inputs["tokenize"], work.inputs["reference"]
    order_L = view.scan_order.order(*view.grid)

    @cache
    def model() -> ImageModel:
        return sampling_model(view.source, work.inputs.get("train"), work.device)

    def nats_per_token(of: TokenSet) -> NDArray[np.float64]:
        from rarkit.training.likelihood import nats_per_image

        return nats_per_image(model(), of.tokens_NL, of.labels_N, order_L, batch_size=LIKELIHOOD_BATCH, device=work.device)

    return TokenizedData(
        train=_token_set(tokens, "train", work.view.seed),
        held_out=_token_set(tokens, view.held_out_split, work.view.seed),
        held_out_split=view.held_out_split,
        codebook_size=view.codebook_size,
        originals_NHWC=reference.read_array(SHOWN_ORIGINALS),
        reconstructions_NHWC=reference.read_array(SHOWN_RECONSTRUCTIONS),
        nats_per_token=nats_per_token,
    )


def _code_counts(data: TokenizedData) -> NDArray[np.int64]:
    sets = [data.train] if data.held_out_split == "train" else [data.train, data.held_out]
    return np.stack([code_counts(tokens.tokens_NL, data.codebook_size) for tokens in sets])


def _token_set(tokens: StageOutput, split: Split, seed: int) -> TokenSet:
    """Tokens and labels of a split, of at most 10,000 images drawn from all."""
    names = f"{split}_tokens", f"{split}_labels"
    rows_N = drawn_rows(seed, tokens.layout(names[0]).shape[0], MEASURED_IMAGES)
    return TokenSet(*(read_rows(tokens, name, rows_N).astype(np.int64) for name in names))
