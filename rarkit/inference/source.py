"""The source of samples, a run or a released checkpoint: an experiment, and the outputs of its stages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from pydantic import ValidationError

from rarkit.cache.output import StageOutput
from rarkit.errors import CapabilityError, UserError, WeightsError, did_you_mean
from rarkit.files.weight_files import FORMATS, INDEX, local_copy
from rarkit.files.weights import checksum
from rarkit.pipeline.receipt import FinishedRun, open_run
from rarkit.recipe.edits import UNSET, drop, merged
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.mistakes import problems_of
from rarkit.recipe.released import RELEASED, released_recipe
from rarkit.registry.loader import parts
from rarkit.sampling.guidance import PowerCosine
from rarkit.sampling.precision import MODEL_DTYPES
from rarkit.sampling.settings import SampleSettings
from rarkit.stages.base import read_state
from rarkit.stages.sample import ModelSource, sampling_model

if TYPE_CHECKING:
    from rarkit.models.image_model import ImageModel
    from rarkit.tokenizers.base import TokenizerModel

BATCH_SIZE = 32
"""Default batch size for a checkpoint, chosen to fit a laptop's memory."""


@final
@dataclass(frozen=True)
class Source:
    """An experiment with sampling settings, of a run or of a checkpoint."""

    experiment: Experiment
    settings: SampleSettings
    run: FinishedRun | None = None
    """The run that it is; None for a checkpoint."""

    def check_ready(self, device: str) -> None:
        """Checks the parts that sampling needs, before anything is loaded.

        Raises:
            CapabilityError: a part cannot be used on the device.
            WeightsError: a file of weights is missing, or is another one than the run used.
        """
        recipe = self.experiment.recipe
        for table, weights in (("model", recipe.model.weights), ("tokenizer", getattr(recipe.tokenizer, "weights", None))):
            if weights is not None:
                self._check_weights(table, weights)
        recipe.model.check_sampling(self.settings.precision, self.settings.kv_cache)
        for table, part in (("attention", recipe.attention), ("tokenizer", recipe.tokenizer)):
            if reason := part.capability(device, MODEL_DTYPES[self.settings.precision]):
                raise CapabilityError(f"[{table}] {part.name!r} cannot be used here: {reason}")

    def _check_weights(self, table: str, weights: str) -> None:
        used = None if self.run is None else self.run.weights.get(table)
        try:
            local_copy(weights)
            is_another = used is not None and checksum(weights) != used
        except WeightsError as error:
            raise WeightsError(f"the weights of [{table}] are missing: {error}") from error
        if is_another and self.run is not None:
            raise WeightsError(
                f"the weights of [{table}] are not those that the run {self.run.folder} used: {weights} has changed since. Put the "
                f"file back that has the SHA-256 {used}, or run the recipe again."
            )

    def model(self, device: str) -> ImageModel:
        """The model in eval mode, in the dtype of the settings' precision."""
        recipe = self.experiment.recipe
        source = ModelSource(
            model=recipe.model,
            config=self.experiment.config,
            attention=recipe.attention,
            precision=self.settings.precision,
        )
        return sampling_model(source, None if recipe.train is None else self._output("train"), device)

    def tokenizer(self, device: str) -> TokenizerModel:
        """The tokenizer with its learned state."""
        tokenizer = self.experiment.recipe.tokenizer
        return tokenizer.build(read_state(self._output("fit")) if tokenizer.learns else {}, device)

    def _output(self, stage: str) -> StageOutput:
        assert self.run is not None, "released recipes have neither [train] nor a tokenizer that learns"
        return self.run.output(stage)


def open_source(
    place: str | os.PathLike[str], preset: str | None = None, tokenizer: str | None = None, store: str | None = None
) -> Source:
    """Opens a run's folder, or a checkpoint with the preset of its size and the weights of its tokenizer.

    Args:
        place: the folder, or path or fsspec URL of the checkpoint.
        preset, tokenizer: of a checkpoint.
        store: where a run's store is now; None for where it was.

    Raises:
        UserError: the place is neither, or preset and tokenizer are missing for a checkpoint or given for a run.
        StoreError: there is no store where ``store`` says.
    """
    name = os.fspath(place)
    if not name.lower().endswith((*FORMATS, INDEX)):
        for option, value in (("--preset", preset), ("--tokenizer", tokenizer)):
            if value is not None:
                raise UserError(
                    f"{name} is read as a run, which has its own model and tokenizer: leave out {option} {value}. "
                    f"Checkpoints end in {', '.join((*FORMATS, INDEX))}."
                )
        run = open_run(name, store)
        return Source(run.experiment, run.recipe.sample or SampleSettings(), run)
    if store is not None:
        raise UserError(f"{name} is a checkpoint, which needs no store: leave out --store {store}.")
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
    recipe = released_recipe(preset, name, tokenizer)
    assert recipe.sample is not None
    # float32, because in bfloat16 a sample may depend on its batch.
    return Source(resolve(recipe), recipe.sample.model_copy(update={"precision": "float32", "batch_size": BATCH_SIZE}))


def changed(
    source: Source,
    scan_order: str | None,
    guidance: Mapping[str, float | None],
    changes: Mapping[str, Any],
    unset: Sequence[str] = (),
) -> Source:
    """The source with other settings; None leaves a setting unchanged.

    Args:
        source: a source from ``open_source``.
        scan_order: name of a scan order, used with its default settings.
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
        for key in unset:
            drop(settings, key, f"{UNSET} {key}", "the recipe's [sample]")
        settings = merged(default, settings)
    settings = merged(settings, {name: value for name, value in changes.items() if value is not None})
    settings["guidance"] = _guided(settings["guidance"], {name: value for name, value in guidance.items() if value is not None})
    try:
        valid = SampleSettings.model_validate(settings)
        if scan_order is not None:
            chosen = parts().scan_orders[scan_order].model_validate({})
            experiment = experiment.with_recipe(experiment.recipe.model_copy(update={"scan_order": chosen}))
    except ValidationError as error:
        problems = problems_of(error, SampleSettings, parts(), ())
        raise UserError("; ".join(f"{path}: {message}" for path, message in problems.items())) from error
    return Source(experiment, valid, source.run)


def _guided(table: Any, changes: dict[str, float]) -> Any:
    """A guidance schedule with another scale, or the power-cosine schedule, at the same scale unless that changes too."""
    if not changes or not isinstance(table, dict):
        return table
    if "power" not in changes:
        return {**table, **changes}
    scale = {"scale": table["scale"]} if "scale" in table else {}
    return {"name": PowerCosine.model_fields["name"].default, **scale, **changes}
