"""The results of a run, read from its own outputs: by their fingerprints, whatever ran since.

Shape letters: N images, H, W, C their height, width and channels, L tokens per image.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import read_rows
from rarkit.errors import StoreError, UserError
from rarkit.evaluation.record import MetricRecord
from rarkit.pipeline.execution import StageResult
from rarkit.pipeline.plan import Plan
from rarkit.pipeline.used_weights import check_weights, contents
from rarkit.registry.inputs import place as place_of
from rarkit.rendering.notebook import heading, picture, table
from rarkit.rendering.numbers import number, words
from rarkit.rendering.pictures import grid_image
from rarkit.stages.base import read_state
from rarkit.stages.evaluate import measured
from rarkit.stages.train import training_log
from rarkit.tokenizers.exported import write_tokenizer

SHOWN_SAMPLES = 40
"""Of a run, what notebooks show."""


@final
@dataclass(frozen=True)
class Run:
    """A run of a recipe and its results."""

    plan: Plan
    folder: Path
    """The folder with report, images and numbers."""
    results: tuple[StageResult, ...]
    seconds: float

    def __repr__(self) -> str:
        return f"Run({self.plan.recipe.recipe_name!r}, folder={str(self.folder)!r}, {len(self.results)} stages)"

    def _repr_html_(self) -> str:
        """Numbers and some samples, for notebooks; what is gone from the store is told in its place."""
        html = heading(self.plan.recipe.recipe_name, f"{self.plan.recipe.title} · {self.folder}")
        for piece in (self._numbers, self._pictures):
            try:
                html += piece()
            except StoreError as error:
                html += heading("not shown", error)
        return str(html)

    def _numbers(self) -> Markup:
        rows = [
            (words(one.name), number(one.value), f"{number(one.low)} – {number(one.high)}" if one.low is not None else "", one.unit)
            for one in self.metrics
        ]
        return table(("metric", "value", "5 % – 95 %", "unit"), rows) if rows else Markup("")

    def _pictures(self) -> Markup:
        if "sample" not in self._outputs:
            return Markup("")
        read = self.samples if "samples" in vars(self) else None
        output = self._outputs["sample"]
        count = output.layout("images").shape[0] if read is None else len(read)
        # Spread over all, because samples lie class by class.
        row_N = np.unique(np.linspace(0, count - 1, min(count, SHOWN_SAMPLES)).astype(np.int64))
        images_NHWC = read_rows(output, "images", row_N) if read is None else read[row_N]
        return picture(grid_image(images_NHWC), f"{len(row_N)} of {count} samples")

    @property
    def did_nothing(self) -> bool:
        """Whether every stage was cached."""
        return all(result.action == "cached" for result in self.results)

    @property
    def metrics(self) -> list[MetricRecord]:
        """The numbers of the run's evaluation; empty if it has none, or stopped before it (``until``).

        Raises:
            IncompleteError: they are read for the first time, and are no longer in the store.
        """
        return self._measured[0]

    @cached_property
    def samples(self) -> NDArray[np.uint8]:
        """The sampled images, (N, H, W, C), read from the store on first use; ``labels`` are their classes.

        Raises:
            UserError: the run sampled nothing.
            IncompleteError: the images are no longer in the store.
        """
        return _sampled(self._outputs, "images")

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The classes of the samples, (N,). Errors are those of ``samples``."""
        return _sampled(self._outputs, "labels").astype(np.int64)

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """The tokens of the samples, (N, L), in raster order. Errors are those of ``samples``."""
        return _sampled(self._outputs, "tokens").astype(np.int64)

    @cached_property
    def log(self) -> dict[str, NDArray[Any]]:
        """The training log by column, each as long: ``step``, ``loss`` in nats per token, ``random_ratio``, …

        ``pandas.DataFrame(run.log)`` is a table of it.

        Raises:
            UserError: the run trained nothing.
            IncompleteError: the log is no longer in the store.
        """
        return _logged(self._outputs)

    def save_tokenizer(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Writes the tokenizer to a file, which ``[tokenizer] weights = …`` of other recipes reads; it need only be trained.

        Args:
            path: path or fsspec URL of the file, ``.safetensors``.
            overwrite: replace a file that is there.

        Returns:
            The path.

        Raises:
            UserError: the tokenizer learns from images, and this run stopped before.
            IncompleteError: what it learned is no longer in the store.
            CapabilityError: it reads files that cannot be in this one.
            WeightsError: the path has another suffix, or cannot be written; or the tokenizer's weights are missing, or have changed
                since the run.
            StoreError: there is a file, and ``overwrite`` is false.
        """
        tokenizer, experiment = self.plan.recipe.tokenizer, self.plan.experiment
        check_weights(self.plan.recipe, contents(stage.identity for stage in self.plan.stages), self.folder, ("tokenizer",))
        lacking = "has not what its tokenizer learned: it stopped before"
        state = read_state(_made(self._outputs, "fit", lacking)) if tokenizer.learns else {}
        channels = None if experiment is None else experiment.images.channels
        return write_tokenizer(tokenizer, state, place_of("path", path), channels=channels, overwrite=overwrite)

    @property
    def lacking(self) -> list[str]:
        """What the evaluation could not measure, and why: a sentence each."""
        return self._measured[1]

    @property
    def _outputs(self) -> dict[str, StageOutput]:
        # By fingerprint, so that what ran since under the same name does not count; not of stages that were left out, whose
        # outputs are of an earlier run.
        return {result.name: self.plan[result.name].output for result in self.results}

    @cached_property
    def _measured(self) -> tuple[list[MetricRecord], list[str]]:
        if "evaluate" not in self._outputs:
            return [], []
        output = self._outputs["evaluate"]
        output.require_complete()
        return measured(output)

    def read_all(self) -> None:
        """Reads samples and log now, while the store is there."""
        made = self._outputs
        if "sample" in made:
            _ = self.samples, self.labels, self.tokens
        if "train" in made:
            _ = self.log


def as_json(run: Run) -> dict[str, Any]:
    """A run as plain JSON data, for ``rarkit run --json``."""
    return {
        "recipe": run.plan.recipe.recipe_name,
        "folder": str(run.folder),
        "seconds": round(run.seconds, 3),
        "stages": [dataclasses.asdict(result) for result in run.results],
        "metrics": [record.to_json() for record in run.metrics],
        "lacking": run.lacking,
    }


def _sampled(outputs: Mapping[str, StageOutput], name: str) -> NDArray[Any]:
    """An array of the stage ``sample``: ``images`` (N, H, W, C), ``labels`` (N,) or ``tokens`` (N, L).

    Raises:
        UserError: the run sampled nothing.
        IncompleteError: the output was removed or damaged since.
    """
    return _made(outputs, "sample", "has no samples: its recipe has no [sample], or it stopped before").read_array(name)


def _logged(outputs: Mapping[str, StageOutput]) -> dict[str, NDArray[Any]]:
    """The training log by column. Errors are those of ``_sampled``."""
    return training_log(_made(outputs, "train", "has no training log: its recipe has no [train], or it stopped before"))


def _made(outputs: Mapping[str, StageOutput], stage: str, lacking: str) -> StageOutput:
    if stage not in outputs:
        raise UserError(f"the run {lacking}. Add the table, or run it to the end.")
    outputs[stage].require_complete()
    return outputs[stage]
