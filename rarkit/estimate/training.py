"""What training needs on GPUs of one kind, however many share the work. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from rarkit.engine.degrees import degrees
from rarkit.engine.memory import advice
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError
from rarkit.estimate.this_machine import UTILISATION
from rarkit.models.base import TrainingBytes, TrainingCosts
from rarkit.recipe.experiment import Experiment
from rarkit.runtime.machine import Gpu
from rarkit.training.memory import USABLE, largest_micro_batch, training_memory


@final
@dataclass(frozen=True)
class TrainEstimate:
    """What training needs on GPUs of one kind, one for each process."""

    steps: int
    step_flops: int
    """Of all processes together."""
    step_seconds: float
    """At the stated utilisation, which includes what the processes wait for each other."""
    processes: int
    shard: int
    """Processes that hold one copy of the weights among them; 1 if each holds all."""
    share: int
    """Images of a process in a step."""
    micro_batch: int
    """Images of a pass: those of the recipe, or as many as fit."""
    accumulation: int
    """Passes of a process in a step."""
    memory: TrainingBytes
    """Of one GPU."""
    fits: bool
    """Whether this fits the memory of the assumed GPU."""
    largest_micro_batch: int | None
    """The largest divisor of ``share`` that fits; None if not even one image fits."""
    lower: str
    """The settings that take less memory."""
    gpu_hours: float
    """Of all GPUs together."""

    @property
    def flops(self) -> int:
        return self.steps * self.step_flops


def train_estimate(experiment: Experiment, gpu: Gpu, processes: int) -> TrainEstimate | None:
    """What the training of a recipe's model needs; None if it trains none, or its batch cannot be divided so."""
    train, costs = experiment.recipe.train, experiment.costs
    if train is None:
        return None
    keeps_weights = experiment.recipe.attention.keeps_weights
    try:
        # Passes are as large as the memory allows, where the recipe does not say.
        most = _largest(train, costs, gpu, processes, keeps_weights) or 1
        return training_estimate(train, costs, gpu, processes, most, keeps_weights=keeps_weights)
    except RecipeError:
        # Listed as missing by ``plan_obstacles``.
        return None


def training_estimate(
    train: TrainSettings, costs: TrainingCosts, gpu: Gpu, processes: int, micro: int | None, *, keeps_weights: bool = False
) -> TrainEstimate:
    """What a training needs.

    Args:
        train: its settings.
        costs: those of what is trained.
        gpu: the GPU of each process.
        processes: those that train together.
        micro: the most images of a pass where the settings do not say; None means a process's whole share.
        keeps_weights: whether attention saves all its weights for the backward pass.

    Raises:
        RecipeError: its batch cannot be divided among so many processes.
    """
    divided, precision = degrees(train, processes, micro), _precision(train)
    memory = training_memory(train, costs, divided, precision=precision, keeps_weights=keeps_weights)
    passes = processes * divided.accumulation
    flops = passes * costs.step_flops(divided.micro, checkpointing=int(train.activation_checkpointing))
    seconds = flops / (processes * UTILISATION * gpu.rates[precision])
    return TrainEstimate(
        steps=train.steps,
        step_flops=flops,
        step_seconds=seconds,
        processes=processes,
        shard=divided.shard,
        share=divided.share,
        micro_batch=divided.micro,
        accumulation=divided.accumulation,
        memory=memory,
        fits=memory.total <= USABLE * gpu.memory,
        largest_micro_batch=_largest(train, costs, gpu, processes, keeps_weights),
        lower=advice(train, divided),
        gpu_hours=processes * train.steps * seconds / 3600,
    )


def _largest(train: TrainSettings, costs: TrainingCosts, gpu: Gpu, processes: int, keeps_weights: bool) -> int | None:
    return largest_micro_batch(train, costs, processes, gpu.memory, precision=_precision(train), keeps_weights=keeps_weights)


def _precision(train: TrainSettings) -> str:
    return "bfloat16" if train.precision == "auto" else train.precision
