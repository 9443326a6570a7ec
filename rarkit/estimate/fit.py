"""What a tokenizer's training by gradient descent needs, found by asking the part what it would train. Imports torch.

Shape letters: N images, H, W, C their height, width and channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from rarkit.engine.memory import lower_in
from rarkit.errors import DatasetError, NotFetchedError, RarkitError
from rarkit.estimate.training import TrainEstimate, training_estimate
from rarkit.images import ImageBlock, ImageInfo, ImageReader
from rarkit.models.base import TrainingBytes, TrainingCosts
from rarkit.pipeline.plan import Plan
from rarkit.recipe.experiment import Experiment
from rarkit.registry.contract import broken
from rarkit.runtime.machine import Gpu

if TYPE_CHECKING:
    from rarkit.engine.footprint import Held, Passed
    from rarkit.engine.planned import Planned

MICRO = "micro_batch_size"
UNKNOWN_COUNT = 10_000
"""Images that a part is told of where their number is unknown."""
MOST_PASSED = 8
"""Images of a pass whose costs are found; those of larger ones follow from it and from a smaller one."""


@final
@dataclass(frozen=True)
class FitEstimate:
    """What a tokenizer that learns by gradient descent needs; of what is unknown, ``unknown`` says why."""

    tokenizer: str
    parameters: Mapping[str, int]
    """By network; empty if unknown."""
    steps: int | None
    images: int | None
    """Of a step."""
    precision: str | None
    """Autocast's dtype, or ``"auto"``."""
    held: TrainingBytes | None
    """What one process holds throughout, if it shares nothing: without activations."""
    training: TrainEstimate | None
    unknown: str | None
    micro_setting: str | None
    """The setting of the images of a pass; None if the part has none by the usual name."""

    @property
    def flops(self) -> int | None:
        return None if self.training is None else self.training.flops


@final
class TaskCosts(TrainingCosts):
    """Of a task: a line through the costs of two passes, since each image adds as much as the others."""

    def __init__(self, planned: Planned, held: Mapping[str, Held], passed: Mapping[int, Mapping[str, Passed]]) -> None:
        """``passed``: what passes take, by their images and by network, of two sizes, or of one if a step has one image."""
        self._keeps_best, self._held, self._passed = planned.keeps_best, held, passed

    def step_flops(self, batch_size: int, *, checkpointing: int) -> int:
        return sum(self._at(batch_size, {size: passes[name].flops for size, passes in self._passed.items()}) for name in self._held)

    def training_bytes(self, *, micro_batch: int, precision: str, checkpointing: int, keeps_weights: bool) -> TrainingBytes:
        def activations(name: str) -> int:
            return self._at(micro_batch, {size: passes[name].peak for size, passes in self._passed.items()})

        # Networks are trained in turn: the gradients of one are gone when the next begins.
        trained, peak = max(((self._held[name].trained, activations(name)) for name in self._held), key=sum)
        return replace(held_bytes(self._held, keeps_best=self._keeps_best), gradients=trained, activations=peak)

    def blocks(self) -> tuple[int, int]:
        blocks = [held.blocks for held in self._held.values()]
        return sum(count for count, _ in blocks), max(size for _, size in blocks)

    def _at(self, size: int, known: Mapping[int, int]) -> int:
        small, large = min(known), max(known)
        if small == large:
            return known[small] * size // small
        each = (known[large] - known[small]) / (large - small)
        return max(0, round(known[large] + each * (size - large)))


def held_bytes(held: Mapping[str, Held], *, keeps_best: bool) -> TrainingBytes:
    """What all networks hold throughout; an average counts where the settings ask for one."""
    return TrainingBytes(
        weights=sum(one.weights for one in held.values()),
        gradients=max(one.trained for one in held.values()),
        optimizer=sum(one.optimizer for one in held.values()),
        casts=0,
        activations=0,
        average=sum(one.trained for one in held.values()),
        best=sum(one.kept for one in held.values()) if keeps_best else 0,
    )


def fit_estimate(plan: Plan, experiment: Experiment, gpu: Gpu, processes: int) -> FitEstimate | None:
    """What ``fit`` needs; None if it does not run, or its tokenizer learns without the engine.

    The part's ``learn`` is called, with images that are none, up to where its training would begin.
    """
    tokenizer = experiment.recipe.tokenizer
    if not (tokenizer.learns and tokenizer.learns_on_all) or plan["fit"].action in ("cached", "not needed", "left out"):
        return None
    from rarkit.engine.footprint import Footprint

    setting = f"tokenizer.{MICRO}" if MICRO in type(tokenizer).model_fields else None
    found = FitEstimate(tokenizer.name, {}, None, None, None, None, None, None, setting)
    # What a part or a library says of images that are none, or of fakes, is not about the recipe.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            planned = _planned(experiment)
            settings = planned.settings
            footprint = Footprint(planned, "bfloat16" if settings.precision == "auto" else settings.precision)
            held = held_bytes(footprint.held, keeps_best=planned.keeps_best)
            found = replace(
                found,
                parameters={name: one.parameters for name, one in footprint.held.items()},
                steps=settings.steps,
                images=settings.batch_size,
                precision=settings.precision,
                held=replace(held, average=held.average if settings.ema_decay is not None else 0),
            )
            large = min(settings.batch_size, MOST_PASSED)
            passed = {size: footprint.passes(size) for size in {large, max(1, large // 2)}}
            costs = TaskCosts(planned, footprint.held, passed)
            training = training_estimate(settings, costs, gpu, processes, planned.micro)
        except Exception as error:  # A part, and what PyTorch says of its losses, may raise anything; the plan shows it.
            return replace(found, unknown=_reason(error))
    return replace(found, training=replace(training, lower=lower_in("tokenizer")))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return str(error) if isinstance(error, RarkitError) else f"{type(error).__name__}: {lines[0]}"


def _planned(experiment: Experiment) -> Planned:
    """What the part would train.

    Raises:
        PluginError: it trains nothing with the engine.
    """
    from rarkit.engine.learning import Learning
    from rarkit.engine.planned import PlanEnds

    tokenizer, dataset = experiment.recipe.tokenizer, experiment.recipe.dataset
    try:
        count = dataset.count("train")
    except (DatasetError, NotFetchedError):
        # Listed as missing already; the estimate needs no data.
        count = None
    reader = _Stand(experiment.images, UNKNOWN_COUNT if count is None else count)
    try:
        tokenizer.learn(reader, 0, Learning(only_plans=True))
    except PlanEnds as end:
        return end.planned
    raise broken(tokenizer, "learns without learning.train")


@final
class _Stand(ImageReader):
    """One image of noise in the place of all: it takes no memory, however many there are."""

    def __init__(self, info: ImageInfo, count: int) -> None:
        shape = info.height, info.width, info.channels
        self._image_HWC = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self._classes, self._count = info.num_classes, count

    def __len__(self) -> int:
        return self._count

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        return self.chosen(np.arange(start, stop), rows)

    def chosen(self, rows_N: NDArray[np.int64], rows: int) -> Iterator[ImageBlock]:
        for start in range(0, len(rows_N), rows):
            some_N = rows_N[start : start + rows]
            yield ImageBlock(np.broadcast_to(self._image_HWC, (len(some_N), *self._image_HWC.shape)), some_N % self._classes)
