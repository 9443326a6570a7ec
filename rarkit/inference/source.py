"""Where pictures are drawn from: a run, or a released checkpoint. Either comes down to a recipe and what its stages left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from pydantic import ValidationError

from rarkit.cache.output import StageOutput
from rarkit.errors import CapabilityError, UserError, WeightsError, did_you_mean
from rarkit.files.weights import FORMATS
from rarkit.pipeline.receipt import open_run
from rarkit.recipe.experiment import Experiment, resolve
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
"""Images drawn at a time from a checkpoint, unless something else is asked for: what a laptop has memory for."""


@final
@dataclass(frozen=True)
class Source:
    """An experiment with its sampling settings, and the outputs of its stages (none for a checkpoint)."""

    experiment: Experiment
    settings: SampleSettings
    outputs: Mapping[str, StageOutput] = field(default_factory=dict)

    def check_ready(self, device: str) -> None:
        """Raises CapabilityError unless the parts that draw can work on the device."""
        recipe = self.experiment.recipe
        recipe.model.check_sampling(self.settings.precision, self.settings.kv_cache)
        for table, part in (("attention", recipe.attention), ("tokenizer", recipe.tokenizer)):
            if reason := part.capability(device, MODEL_DTYPES[self.settings.precision]):
                raise CapabilityError(f"[{table}] {part.name!r} cannot work here: {reason}")

    def model(self, device: str) -> ImageModel:
        """The model, in the type that the settings' precision asks for."""
        recipe = self.experiment.recipe
        source = ModelSource(
            model=recipe.model,
            config=self.experiment.config,
            attention=recipe.attention,
            precision=self.settings.precision,
        )
        return sampling_model(source, None if recipe.train is None else self._output("train"), device)

    def tokenizer(self, device: str) -> TokenizerModel:
        """The tokenizer, with what it learned."""
        tokenizer = self.experiment.recipe.tokenizer
        return tokenizer.build(read_state(self._output("fit")) if tokenizer.learns else {}, device)

    def _output(self, stage: str) -> StageOutput:
        if stage not in self.outputs:
            raise WeightsError(
                f"the run {self.experiment.recipe.recipe_name!r} has no output of its stage {stage!r}: it was stopped before. "
                "Run its recipe to the end."
            )
        self.outputs[stage].require_complete()
        return self.outputs[stage]


def open_source(place: str | os.PathLike[str], preset: str | None = None, tokenizer: str | None = None) -> Source:
    """A run's folder, or a checkpoint with the name of its size and the weights of its tokenizer.

    Raises:
        UserError: the place is neither, or what goes with a checkpoint was left out or given with a run.
    """
    name = os.fspath(place)
    if not name.lower().endswith(FORMATS):
        for option, value in (("--preset", preset), ("--tokenizer", tokenizer)):
            if value is not None:
                raise UserError(
                    f"{name} is taken for a run, which has its own model and tokenizer: leave out {option} {value}. "
                    f"Checkpoints end in {', '.join(FORMATS)}."
                )
        run = open_run(name)
        return Source(run.experiment, run.recipe.sample or SampleSettings(), run.outputs)
    if preset is None:
        raise UserError(f"{name} does not say how to sample from it: give --preset, one of {', '.join(RELEASED)}.")
    if preset not in RELEASED:
        hint = did_you_mean(preset, RELEASED)
        raise UserError(f"there is no preset {preset!r}{hint} Presets are {', '.join(RELEASED)}.")
    if tokenizer is None:
        raise UserError(
            f"{name} draws tokens, and images need their tokenizer: give --tokenizer, the released "
            "maskgit-vqgan-imagenet-f16-256.bin (a path or any fsspec URL)."
        )
    recipe = released_recipe(preset, name, tokenizer)
    assert recipe.sample is not None
    # In float32 a sample does not depend on its batch; in bfloat16 it may.
    return Source(resolve(recipe), recipe.sample.model_copy(update={"precision": "float32", "batch_size": BATCH_SIZE}))


def changed(source: Source, scan_order: str | None, guidance: Mapping[str, float | None], **changes: Any) -> Source:
    """The source with other settings; what is None stays as it was.

    Args:
        source: from ``open_source``.
        scan_order: an order by name, with its default settings.
        guidance: ``scale``, for the source's own schedule, and ``power``, which makes it the power-cosine one.
        changes: fields of ``SampleSettings``.

    Raises:
        UserError: a value that the setting cannot take.
    """
    settings, experiment = source.settings.model_dump(), source.experiment
    settings |= {name: value for name, value in changes.items() if value is not None}
    given = {name: value for name, value in guidance.items() if value is not None}
    if "power" in given:
        given = {"name": PowerCosine.model_fields["name"].default, "scale": source.settings.guidance.scale, **given}
        settings["guidance"] = given
    else:
        settings["guidance"] |= given
    try:
        valid = SampleSettings.model_validate(settings)
        if scan_order is not None:
            chosen = parts().scan_orders[scan_order].model_validate({})
            experiment = experiment.with_recipe(experiment.recipe.model_copy(update={"scan_order": chosen}))
    except ValidationError as error:
        mistakes = (f"{'.'.join(map(str, one['loc']))}: found {one['input']!r}; {one['msg']}" for one in error.errors())
        raise UserError("; ".join(mistakes)) from error
    return Source(experiment, valid, source.outputs)
