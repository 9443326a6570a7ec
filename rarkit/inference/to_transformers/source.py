"""What is exported: the model of a run, or a released checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from rarkit.errors import UserError, did_you_mean
from rarkit.evaluation.record import MetricRecord
from rarkit.files.weight_files import FORMATS, INDEX
from rarkit.inference.source import Source
from rarkit.pipeline.receipt import open_run
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.released import RELEASED, released_recipe
from rarkit.sampling.settings import SampleSettings
from rarkit.stages.evaluate import measured
from rarkit.stages.train import trained_model
from rarkit.tokenizers.base import ImageDecoder

if TYPE_CHECKING:
    from rarkit.models.image_model import ImageModel

RELEASED_TOKENIZER = "maskgit-vqgan-imagenet-f16-256.bin"


@final
@dataclass(frozen=True)
class Exported:
    """A model with all that its folder says."""

    experiment: Experiment
    model: ImageModel
    decoder: ImageDecoder | None
    settings: SampleSettings
    metrics: Sequence[MetricRecord]


def open_exported(
    place: str | os.PathLike[str],
    preset: str | None,
    tokenizer: str | os.PathLike[str] | None,
    store: str | os.PathLike[str] | None,
) -> Exported:
    """Opens a run's folder, or a checkpoint of a released size.

    Raises:
        UserError: the place is neither, or preset and tokenizer are missing for a checkpoint or given for a run.
        WeightsError, IncompleteError, StoreError: see ``export_transformers``.
    """
    name = os.fspath(place)
    if name.lower().endswith((*FORMATS, INDEX)):
        if store is not None:
            raise UserError(f"{name} is a checkpoint, which needs no store: leave out --store {store}.")
        return _checkpoint(name, preset, tokenizer)
    for option, value in (("--preset", preset), ("--tokenizer", tokenizer)):
        if value is not None:
            raise UserError(f"{name} is a run, which has its own model and tokenizer: leave out {option} {value}.")
    return _run(Path(name), store)


def _checkpoint(name: str, preset: str | None, tokenizer: str | os.PathLike[str] | None) -> Exported:
    if preset not in RELEASED:
        hint = "" if preset is None else did_you_mean(preset, RELEASED)
        raise UserError(f"{name} is a checkpoint: give its size with --preset, one of {', '.join(RELEASED)}.{hint}")
    recipe = released_recipe(preset, name, os.fspath(tokenizer or RELEASED_TOKENIZER))
    experiment = resolve(recipe)
    assert recipe.sample is not None
    decoder = None if tokenizer is None else recipe.tokenizer.image_decoder({})
    model = recipe.model.load(name, experiment.config, recipe.attention.build(), device="cpu", dtype=None)
    return Exported(experiment, model, decoder, recipe.sample, ())


def _run(folder: Path, store: str | os.PathLike[str] | None) -> Exported:
    run = open_run(folder, store)
    recipe, experiment = run.recipe, run.experiment
    settings = recipe.sample or SampleSettings()
    source = Source(experiment, settings, run)
    decoder = recipe.tokenizer.image_decoder(source.tokenizer_state())
    source.check_weights("model", *(["tokenizer"] if decoder is not None else []))
    if recipe.train is None:
        assert recipe.model.weights is not None, "a recipe without [train] names weights"
        model = recipe.model.load(recipe.model.weights, experiment.config, recipe.attention.build(), device="cpu", dtype=None)
    else:
        model = trained_model(run.output("train"), recipe.model, experiment.config, recipe.attention, "cpu")
    metrics = measured(run.output("evaluate"))[0] if "evaluate" in run.outputs else []
    return Exported(experiment, model, decoder, settings, metrics)
