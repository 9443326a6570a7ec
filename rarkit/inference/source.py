"""A trained model before it is loaded, of a run, a bundle or a released checkpoint: an experiment, and where its weights are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rarkit.cache.output import StageOutput
from rarkit.errors import CapabilityError, UserError, did_you_mean
from rarkit.files.weight_files import FORMATS, INDEX
from rarkit.inference.bundle import Bundle, is_bundle_name, read_bundle, write_bundle
from rarkit.pipeline.receipt import FinishedRun, open_run
from rarkit.pipeline.results import Run
from rarkit.pipeline.used_weights import READING, check_weights, contents
from rarkit.recipe.edits import UNSET, drop, merged
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.mistakes import problems_of
from rarkit.recipe.released import RELEASED, released_recipe
from rarkit.registry.inputs import names
from rarkit.registry.inputs import place as place_of
from rarkit.registry.loader import parts
from rarkit.registry.shown import shown
from rarkit.sampling.guidance import PowerCosine
from rarkit.sampling.precision import MODEL_DTYPES
from rarkit.sampling.settings import SampleSettings
from rarkit.scan_orders.base import ScanOrder
from rarkit.stages.base import read_state
from rarkit.stages.sample import ModelSource, sampling_model
from rarkit.tokenizers.base import Tokenizer
from rarkit.tokenizers.exported import is_exported, write_tokenizer

if TYPE_CHECKING:
    from rarkit.models.image_model import ImageModel
    from rarkit.tokenizers.base import TokenizerModel

BATCH_SIZE = 32
"""Default batch size for a checkpoint, chosen to fit a laptop's memory."""


@final
@dataclass(frozen=True)
class Source:
    """An experiment with sampling settings, of a run, a bundle or a checkpoint."""

    experiment: Experiment
    settings: SampleSettings
    run: FinishedRun | None = None
    """The run that it is; None for a checkpoint and a bundle."""
    bundle: Bundle | None = None
    """The bundle that it is; None for a run and a checkpoint."""

    def check_ready(self, device: str) -> None:
        """Checks the parts that sampling needs, before anything is loaded.

        Raises:
            CapabilityError: a part cannot be used on the device.
            WeightsError: a file of weights is missing, or is another one than the run used.
        """
        self.check_weights()
        recipe = self.experiment.recipe
        recipe.model.check_sampling(self.settings.precision, self.settings.kv_cache)
        for table, part in (("attention", recipe.attention), ("tokenizer", recipe.tokenizer)):
            if reason := part.capability(device, MODEL_DTYPES[self.settings.precision]):
                raise CapabilityError(f"[{table}] {part.name!r} cannot be used here: {reason}")

    def check_weights(self, *tables: str) -> None:
        """Raises WeightsError if a file of weights, of these tables or of all, is missing, or is another one than the run used."""
        used, folder = ({}, None) if self.run is None else (self.run.used, self.run.folder)
        check_weights(self.experiment.recipe, used, folder, tables or READING)

    def model(self, device: str) -> ImageModel:
        """The model in eval mode, in the dtype of the settings' precision."""
        recipe = self.experiment.recipe
        if self.bundle is not None:
            return self.bundle.model(device, MODEL_DTYPES[self.settings.precision])
        source = ModelSource(
            model=recipe.model,
            config=self.experiment.config,
            attention=recipe.attention,
            precision=self.settings.precision,
        )
        return sampling_model(source, None if recipe.train is None else self._output("train"), device)

    def tokenizer(self, device: str) -> TokenizerModel:
        """The tokenizer with its learned state."""
        return self.experiment.recipe.tokenizer.build(self.tokenizer_state(), device)

    def tokenizer_state(self) -> Mapping[str, NDArray[np.generic]]:
        """What the tokenizer learned, or what a bundle has in place of its files."""
        if self.bundle is not None:
            return self.bundle.state
        return read_state(self._output("fit")) if self.experiment.recipe.tokenizer.learns else {}

    def write_bundle(self, settings: SampleSettings, model: ImageModel, path: str | os.PathLike[str]) -> str:
        """Writes a model with all that belongs to it to a file, as ``rarkit.inference.bundle.write_bundle`` does."""
        self.check_weights("tokenizer")
        return write_bundle(self.experiment, settings, model, self.tokenizer_state(), path)

    def write_tokenizer(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Writes the tokenizer alone to a file, as ``rarkit.tokenizers.exported.write_tokenizer`` does."""
        self.check_weights("tokenizer")
        tokenizer, channels = self.experiment.recipe.tokenizer, self.experiment.images.channels
        return write_tokenizer(tokenizer, self.tokenizer_state(), place_of("path", path), channels=channels, overwrite=overwrite)

    def _output(self, stage: str) -> StageOutput:
        assert self.run is not None, "released recipes have neither [train] nor a tokenizer that learns"
        return self.run.output(stage)


def open_source(
    place: Run | str | os.PathLike[str],
    preset: str | None = None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Source:
    """Opens a run, a bundle, or a checkpoint with the preset of its size and its tokenizer.

    Args:
        place: a run, or its folder; path or fsspec URL of a bundle or a checkpoint.
        preset, tokenizer: of a checkpoint.
        store: where a run's store is now; None for where it was.

    Raises:
        UserError: the place is none of them, or preset and tokenizer are missing for a checkpoint or given for anything else.
        StoreError: there is no store where ``store`` says.
        WeightsError: a bundle is damaged, or the weights that a run used have changed since.
    """
    if isinstance(place, Run):
        _refuse(f"the run {place.folder}", "is a run, which", preset, tokenizer, store)
        return _of_run(place)
    if not isinstance(place, str | os.PathLike):
        raise UserError(
            f"found {shown(place)} where a trained model is needed. Give what rarkit.run returns, the folder of a run, or the path "
            "of a bundle or a checkpoint."
        )
    name = os.fspath(place)
    if not name.lower().endswith((*FORMATS, INDEX)):
        _refuse(name, "is read as a run, which", preset, tokenizer, None)
        run = open_run(name, store)
        return Source(run.experiment, run.recipe.sample or SampleSettings(), run)
    if preset is None and is_bundle_name(name):
        if (bundle := read_bundle(name)) is not None:
            _refuse(name, "is a bundle, which", preset, tokenizer, store)
            return Source(bundle.experiment, bundle.settings, bundle=bundle)
        if is_exported(name):
            raise UserError(f"{name} is a tokenizer's file, which has no model. Name a run, a bundle or a checkpoint.")
    if store is not None:
        raise UserError(f"{name} is a checkpoint, which needs no store: leave out --store {store}.")
    return _checkpoint(name, preset, tokenizer)


def _refuse(name: str, what: str, preset: str | None, tokenizer: object, store: str | os.PathLike[str] | None) -> None:
    """Refuses what only a checkpoint, or a folder, takes."""
    for option, value in (("--preset", preset), ("--tokenizer", tokenizer)):
        if value is not None:
            raise UserError(
                f"{name} {what} has its own model and tokenizer: leave out {option} {value}. "
                f"Checkpoints end in {', '.join((*FORMATS, INDEX))}."
            )
    if store is not None:
        raise UserError(f"{name} {what} needs no store: leave out --store {store}.")


def _of_run(run: Run) -> Source:
    """A run that this process made: its own outputs, whatever its folder shows by now."""
    experiment = run.plan.experiment
    if experiment is None:
        # Without its data, what the run knows of it is in the receipt.
        opened = open_run(run.folder)
        return Source(opened.experiment, opened.recipe.sample or SampleSettings(), opened)
    stages = {stage.name: stage for stage in run.plan.stages if stage.fingerprint is not None and stage.action != "left out"}
    outputs = {name: stage.output for name, stage in stages.items()}
    finished = FinishedRun(run.folder, run.plan.store, experiment, outputs, contents(stage.identity for stage in run.plan.stages))
    return Source(experiment, experiment.recipe.sample or SampleSettings(), finished)


def _checkpoint(name: str, preset: str | None, tokenizer: str | os.PathLike[str] | Tokenizer | None) -> Source:
    if preset is None:
        raise UserError(f"{name} is a checkpoint without sampling settings: give --preset, one of {', '.join(RELEASED)}.")
    if preset not in RELEASED:
        hint = did_you_mean(preset, RELEASED)
        raise UserError(f"there is no preset {preset!r}{hint} Presets are {', '.join(RELEASED)}.")
    if tokenizer is None:
        raise UserError(
            f"{name} has no tokenizer to decode its tokens: give --tokenizer, the path or fsspec URL of the released "
            "maskgit-vqgan-imagenet-f16-256.bin."
        )
    if isinstance(tokenizer, Tokenizer):
        if tokenizer.learns:
            raise UserError(f"tokenizer {tokenizer.name!r} learns from images, and {name} has not what it learned. Use a bundle.")
        recipe = released_recipe(preset, name, "").model_copy(update={"tokenizer": tokenizer})
    else:
        recipe = released_recipe(preset, name, os.fspath(tokenizer))
    assert recipe.sample is not None
    # float32, because in bfloat16 a sample may depend on its batch.
    return Source(resolve(recipe), recipe.sample.model_copy(update={"precision": "float32", "batch_size": BATCH_SIZE}))


def changed(
    source: Source,
    scan_order: str | ScanOrder | None,
    guidance: Mapping[str, float | None],
    changes: Mapping[str, Any],
    unset: Sequence[str] = (),
) -> Source:
    """The source with other settings; None leaves a setting unchanged.

    Args:
        source: a source from ``open_source``.
        scan_order: a scan order, or the name of one, used with its default settings.
        guidance: ``scale`` of the guidance schedule, and ``power``, which selects the power-cosine schedule.
        changes: fields of ``SampleSettings``; those of ``guidance`` may be given one by one.
        unset: settings that go back to their default before the others change.

    Raises:
        UserError: a setting has an invalid value, or one to unset is at its default already.
    """
    settings, experiment = source.settings.model_dump(), source.experiment
    if unset:
        default = SampleSettings().model_dump()
        settings = {name: value for name, value in settings.items() if value != default[name]}
        for key in names("unset", unset):
            drop(settings, key, f"{UNSET} {key}", "the recipe's [sample]")
        settings = merged(default, settings)
    settings = merged(settings, {name: value for name, value in changes.items() if value is not None})
    settings["guidance"] = _guided(settings["guidance"], {name: value for name, value in guidance.items() if value is not None})
    try:
        valid = SampleSettings.model_validate(settings)
        if scan_order is not None:
            chosen = scan_order if isinstance(scan_order, ScanOrder) else parts().scan_orders[scan_order].model_validate({})
            experiment = experiment.with_recipe(experiment.recipe.model_copy(update={"scan_order": chosen}))
    except ValidationError as error:
        problems = problems_of(error, SampleSettings, parts(), ())
        raise UserError("; ".join(f"{path}: {message}" for path, message in problems.items())) from error
    return replace(source, experiment=experiment, settings=valid)


def _guided(table: Any, changes: dict[str, float]) -> Any:
    """A guidance schedule with another scale, or the power-cosine schedule, at the same scale unless that changes too."""
    if not changes or not isinstance(table, dict):
        return table
    if "power" not in changes:
        return {**table, **changes}
    scale = {"scale": table["scale"]} if "scale" in table else {}
    return {"name": PowerCosine.model_fields["name"].default, **scale, **changes}
