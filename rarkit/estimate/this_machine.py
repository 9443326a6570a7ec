"""How long a recipe takes on this machine: assumed from stated rates, or measured on a few steps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from rarkit.engine.settings import TrainSettings
from rarkit.errors import CapabilityError
from rarkit.pipeline.cpu_threads import is_small, sensible_threads
from rarkit.pipeline.preflight import part_obstacles
from rarkit.recipe.experiment import Experiment
from rarkit.runtime.machine import auto_precision, emulates_bfloat16, gpu_called, gpu_name, here
from rarkit.runtime.ranks import ALONE
from rarkit.stages.passes import Passes
from rarkit.stages.sample import prepared

if TYPE_CHECKING:
    from rarkit.sampling.settings import SampleSettings

CORE_RATE = 25e9
"""Assumed FLOP/s of a processor's core. Training the digits recipe reaches it on one core of an AMD EPYC."""
UTILISATION = 0.4
"""Assumed utilisation of a GPU: the share of its peak rate, or of its memory bandwidth if that is the limit."""
EMULATION = 10
"""How many times as long training takes in bfloat16 on processors without instructions for it."""
LONGEST_STEP = 20.0
"""Seconds that a measured step or batch may take by the assumed rate; of a larger one, a part is measured."""
MEASURED_STEPS = 3


@final
@dataclass(frozen=True)
class Here:
    """The time that training and sampling take on this machine; None where nothing is known of its GPU, or without the stage."""

    device: str
    basis: str
    """What the times rest on."""
    precision: str | None
    """What training computes in."""
    train_seconds: float | None
    sample_seconds: float | None
    fit_seconds: float | None = None
    """Of the tokenizer's training; never measured."""


def assumed(
    experiment: Experiment,
    train_flops: int | None,
    sample_flops: int | None,
    fit_flops: int | None = None,
    *,
    fit_precision: str | None = None,
) -> Here:
    """The times from FLOPs at a stated rate; ``fit_precision`` is that of the tokenizer's training. Imports no torch."""
    device = here()
    rate = _rate(experiment, device)
    cores = _cores(experiment)
    basis = f"assumes {CORE_RATE / 1e9:.0f} GFLOP/s on {'one core' if cores == 1 else f'each of {cores} cores'}"
    if device == "cuda":
        basis = f"assumes {UTILISATION:.0%} of the peak of {gpu_name()}" if rate else f"nothing is known of {gpu_name()}"
    slow = _slowness(experiment, device)
    if slow > 1:
        basis += ", a tenth of that in bfloat16, which this processor has no instructions for: set train.precision = 'float32'"
    train, sample = (None if count is None or rate is None else count / rate for count in (train_flops, sample_flops))
    fit = _fit_seconds(experiment, fit_flops, fit_precision, device)
    return Here(device, basis, _precision(experiment, device), None if train is None else slow * train, sample, fit)


def _fit_seconds(experiment: Experiment, flops: int | None, precision: str | None, device: str) -> float | None:
    if flops is None or precision is None:
        return None
    exact = auto_precision(device) if precision == "auto" else precision
    rate = _rate(experiment, device, exact)
    slow = EMULATION if device == "cpu" and exact == "bfloat16" and emulates_bfloat16() else 1
    return None if rate is None else slow * flops / rate


def measured(experiment: Experiment) -> Here:
    """The times from a few steps of training and two batches of samples, with random weights and tokens, in one process.

    Raises:
        CapabilityError: the recipe cannot run on this machine.
    """
    from rarkit.runtime.devices import resolve_device

    device, settings = resolve_device("auto"), experiment.recipe.train
    if settings is not None:
        settings = settings.model_copy(update={"data_parallel": "ddp", "shard": None, "replicate": None})
    for reason in part_obstacles(experiment.recipe.model_copy(update={"train": settings}), device).values():
        raise CapabilityError(reason)
    with sensible_threads(experiment, device):
        train = None if settings is None else _measured_training(experiment, settings, device)
        sample = None if experiment.recipe.sample is None else _measured_sampling(experiment, experiment.recipe.sample, device)
    return Here(device, f"measured on {MEASURED_STEPS} steps", _precision(experiment, device), train, sample)


def _precision(experiment: Experiment, device: str) -> str | None:
    train = experiment.recipe.train
    return None if train is None else auto_precision(device) if train.precision == "auto" else train.precision


def _slowness(experiment: Experiment, device: str) -> int:
    return EMULATION if device == "cpu" and _precision(experiment, device) == "bfloat16" and emulates_bfloat16() else 1


def _cores(experiment: Experiment) -> int:
    return 1 if is_small(experiment) else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rate(experiment: Experiment, device: str, precision: str | None = None) -> float | None:
    """FLOP/s; None for a GPU of which nothing is known."""
    if device == "cpu":
        return CORE_RATE * _cores(experiment)
    known = gpu_called(gpu_name())
    return None if known is None else UTILISATION * known.rates[precision or _precision(experiment, device) or "bfloat16"]


def _part(size: int, flops: Callable[[int], int], rate: float | None) -> int:
    """The largest divisor of a batch size that takes ``LONGEST_STEP`` seconds at most by the assumed rate, at least 1."""
    divisors = (part for part in range(size, 0, -1) if size % part == 0)
    return next((part for part in divisors if rate is None or flops(part) <= LONGEST_STEP * rate), 1)


@final
class _RandomRows:
    """Rows that no data set is needed for."""

    def __init__(self, values: NDArray[np.int64]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._values[indices]


def _measured_training(experiment: Experiment, train: TrainSettings, device: str) -> float:
    from rarkit.engine.degrees import degrees
    from rarkit.engine.trainer import Trainer
    from rarkit.training.next_token import NextToken

    config, recipe, slow = experiment.config, experiment.recipe, _slowness(experiment, device)
    most = Passes(train, experiment.costs, recipe.attention.keeps_weights, device, ALONE).most()
    size = _part(
        train.micro_batch_size or most or train.batch_size,
        lambda part: slow * experiment.costs.step_flops(part, checkpointing=int(train.activation_checkpointing)),
        _rate(experiment, device),
    )
    generator = np.random.default_rng(0)
    settings = train.model_copy(update={"batch_size": size, "micro_batch_size": None})
    task = NextToken(
        recipe.model.create(config, recipe.attention.build(), recipe.seed),
        _RandomRows(generator.integers(0, config.codebook_size, (size, config.seq_len))),
        _RandomRows(generator.integers(0, config.num_classes, size)),
        settings,
        seed=recipe.seed,
        scan_order_L=experiment.order_L,
        schedule=experiment.schedule,
    )
    trainer = Trainer(task, settings, seed=recipe.seed, device=device, degrees=degrees(settings, 1))

    def advance() -> None:
        trainer.advance()
        list(trainer.records(all_of_them=True))

    seconds = _seconds(advance, MEASURED_STEPS)
    return train.steps * (train.batch_size / size) * seconds


def _measured_sampling(experiment: Experiment, sample: SampleSettings, device: str) -> float:
    import torch

    from rarkit.sampling.generation import generate
    from rarkit.sampling.precision import MODEL_DTYPES

    config, recipe = experiment.config, experiment.recipe
    images = len(experiment.sample_classes) * sample.per_class
    guided = sample.guidance.guided_steps(config.seq_len)
    size = _part(
        min(sample.batch_size, images),
        lambda part: experiment.costs.sampling_flops(batch=part, classes=part, guided_steps=guided),
        _rate(experiment, device),
    )
    model = recipe.model.create(config, recipe.attention.build(), recipe.seed).to(device).eval()
    decodable = prepared(model.to(getattr(torch, MODEL_DTYPES[sample.precision])), sample)
    labels_B = torch.from_numpy(np.resize(np.array(experiment.sample_classes), size))
    order_L = torch.from_numpy(experiment.order_L)

    def draw() -> None:
        with torch.inference_mode():
            generate(decodable, labels_B, order=order_L, choice=sample, seed=0, indices=np.arange(size)).cpu()

    return images / size * _seconds(draw, 1)


def _seconds(work: Callable[[], object], count: int) -> float:
    """The median time of ``work``, after a first call that compiles and allocates."""
    times = []
    for _ in range(count + 1):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))
