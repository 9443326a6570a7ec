"""fit: trains the tokenizer, if it learns from data."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rarkit.cache.output import StageOutput
from rarkit.datasets.base import Dataset
from rarkit.engine.checkpoint_seal import checkpoint_step
from rarkit.engine.trained import Note
from rarkit.errors import IncompleteError
from rarkit.files.stored_json import read_json
from rarkit.images import ImageInfo
from rarkit.randomness import derived_seed
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.stages.base import Stage, View, Work, write_log, write_state
from rarkit.stages.shown_images import SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS, reconstructed, shown_of
from rarkit.tokenizers.base import Tokenizer

NOTES = "notes.json"
MEASURED = "measured_"
"""Prefix of the arrays that hold what was measured of held-out samples."""
KEPT_STEP = "kept_step"
"""The array, of one number, that holds the steps that the kept weights were trained for, where they were chosen."""


@final
class Notes(BaseModel):
    """What the file says."""

    model_config = ConfigDict(strict=True)

    notes: Annotated[tuple[Note, ...], Field(max_length=1000)]


@final
class FitView(View):
    """What ``fit`` reads."""

    seed: int
    dataset: Dataset
    tokenizer: Tokenizer
    # Dataset and tokenizer determine the rest, which is only for a check.
    grid: Annotated[Grid, NotInFingerprint()]
    images: Annotated[ImageInfo, NotInFingerprint()]


@final
class Fit(Stage[FitView]):
    """Training images → the tokenizer's learned state, ``shown_originals`` and ``shown_reconstructions``."""

    name = "fit"
    is_shared = True

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        return () if recipe.tokenizer.learns else None

    def view(self, experiment: Experiment) -> FitView | None:
        recipe = experiment.recipe
        if not recipe.tokenizer.learns:
            return None
        return FitView(
            seed=recipe.seed, dataset=recipe.dataset, tokenizer=recipe.tokenizer, grid=experiment.grid, images=experiment.images
        )

    def left_off(self, view: FitView, output: StageOutput) -> str | None:
        step = checkpoint_step(output)
        return None if step is None else f"step {step:,}"

    def run(self, work: Work[FitView]) -> None:
        import torch

        view, tokenizer, ranks = work.view, work.view.tokenizer, work.ranks
        what = f"fit: training tokenizer {tokenizer.name!r}"
        work.reporter.say(what if tokenizer.learns_on_all else ranks.alone(what))
        if not (ranks.first or tokenizer.learns_on_all):
            return
        learning = replace(work.learning(), part="tokenizer", show=work.show, trackers=work.trackers)
        # Before hours are spent: the held-out images may be missing.
        originals_NHWC = shown_of(view.seed, view.dataset) if ranks.first else None
        state = tokenizer.learn(view.dataset.open("train"), derived_seed(view.seed, "fit tokenizer"), learning)
        if originals_NHWC is None:
            return
        with torch.inference_mode():
            model = tokenizer.build(state, work.device)
            tokenizer.check_decoding(model, view.grid, view.images)
            work.output.write_array(SHOWN_ORIGINALS, originals_NHWC)
            work.output.write_array(SHOWN_RECONSTRUCTIONS, reconstructed(model, originals_NHWC))
        write_state(work.output, state)
        for trained in learning.finished[-1:]:
            write_log(work.output, trained.log)
            for name, values in trained.measured.items():
                work.output.write_array(MEASURED + name, values)
            if trained.best_step is not None:
                work.output.write_array(KEPT_STEP, np.array([trained.best_step]))
        files = [NOTES] if learning.notes else []
        if learning.notes:
            notes = [note.model_dump() for note in learning.notes]
            work.output.write_file(NOTES, json.dumps({"notes": notes}, indent=1).encode())
        work.output.finish(files)
        work.remove_checkpoints(files)


def fit_measured(output: StageOutput) -> dict[str, NDArray[Any]]:
    """What the training measured of held-out samples, by column, as ``Trained.measured``; empty if it measured nothing."""
    names = [name for name in output.begun().arrays if name.startswith(MEASURED)]
    return {name.removeprefix(MEASURED): output.read_array(name) for name in names}


def fit_kept_step(output: StageOutput) -> int | None:
    """The steps that the kept weights were trained for; None where nothing chose them, or an older rarkit wrote the output."""
    return int(output.read_array(KEPT_STEP)[0]) if KEPT_STEP in output.begun().arrays else None


def fit_notes(output: StageOutput) -> tuple[Note, ...]:
    """What the tokenizer noted when it learned. Raises IncompleteError if it is damaged."""
    if NOTES not in output.file_names():
        return ()
    place = f"{NOTES} of {output}"
    return read_json(Notes, output.read_file(NOTES), place, output.cure, raising=IncompleteError).notes
