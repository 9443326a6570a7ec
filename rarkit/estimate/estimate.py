"""Estimates what a run needs (parameters, disk, FLOPs, memory, time), and lists what is missing here. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import final

import numpy as np

from rarkit.cache.chunk_layout import token_dtype
from rarkit.errors import CapabilityError, DatasetError, NotFetchedError, WeightsError
from rarkit.estimate.fit import FitEstimate, fit_estimate
from rarkit.estimate.this_machine import UTILISATION, Here, assumed, measured
from rarkit.estimate.training import TrainEstimate, train_estimate
from rarkit.files.restraint import fetching
from rarkit.models.base import SamplingBytes
from rarkit.models.config import ModelConfig
from rarkit.pipeline.plan import Plan
from rarkit.pipeline.plan import plan as make_plan
from rarkit.pipeline.preflight import missing_content, plan_obstacles, usable_backends
from rarkit.pipeline.published import with_published
from rarkit.pipeline.trial import initial_changes, unfit_weights
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.make import AnyRecipe
from rarkit.registry.bounds import MOST_SAMPLES
from rarkit.runtime.machine import GPU_WORTHY, GPUS, Gpu, gpu_count, no_gpu
from rarkit.runtime.random_state import random_state_kept
from rarkit.runtime.ranks import ALONE
from rarkit.runtime.signals import launched, local_world_size, world_size
from rarkit.sampling.precision import MODEL_DTYPES
from rarkit.stages.passes import Passes
from rarkit.stages.reference import opens_data
from rarkit.stages.sample import sample_rows
from rarkit.stages.tokenize import Tokenize
from rarkit.training.memory import USABLE

LABEL_BYTES = 4


@final
@dataclass(frozen=True)
class SampleEstimate:
    """What sampling needs on one GPU, without decoding tokens to images."""

    images: int
    batch: int
    flops: int
    memory: SamplingBytes
    cpu_memory: SamplingBytes
    """Memory for the same batch on a CPU, with the compiled kernels."""
    fits: bool
    """Whether this fits the memory of the assumed GPU."""
    gpu_hours: float


@final
@dataclass(frozen=True)
class Estimate:
    """What a whole recipe needs, even if some stages are cached; None or empty if the shape of the images is unknown."""

    gpu: Gpu
    model: ModelConfig | None
    images: Mapping[str, int | None]
    """Images to tokenize by split; None if the number is unknown without opening the data."""
    disk: Mapping[str, int]
    """Bytes in the store by kind of data, and of ``samples.npz`` beside the report."""
    train: TrainEstimate | None
    sample: SampleEstimate | None
    here: Here | None
    """The time on this machine."""
    missing: Mapping[str, str]
    """What is missing here, by name, with how to get it."""
    attention: Mapping[str, str | None] = field(default_factory=dict)
    """For each installed attention backend, why the recipe could not use it on this machine; None if it could."""
    fit: FitEstimate | None = None
    """What the training of the tokenizer needs; None if it runs none with the engine."""
    initial_changes: tuple[str, ...] = ()
    """What the training begins with if ``train.init_from`` says so, and what is adapted for it."""


@random_state_kept()
def estimate(plan: Plan | AnyRecipe, gpu: str = "h100", *, measure: bool = False, processes: int | None = None) -> Estimate:
    """Estimates what a recipe needs on GPUs of ``GPUS``, how long it takes here, and what is missing on this machine.

    Nothing large is fetched from other machines.

    Args:
        plan: a plan, or what ``rarkit.plan`` takes, which is then planned against the default store.
        gpu: a key of ``GPUS``.
        measure: time a few steps here instead of assuming a rate.
        processes: those that train together, a GPU for each; None for as many as ``torchrun`` started, or one without it.

    Raises:
        CapabilityError: ``measure`` is set, and the recipe cannot run on this machine.
    """
    with fetching("little"):
        planned = plan if isinstance(plan, Plan) else make_plan(plan)
        return _estimate(planned, GPUS[gpu], measure, world_size() if processes is None else processes)


def _estimate(plan: Plan, kind: Gpu, measure: bool, processes: int) -> Estimate:
    experiment = plan.experiment
    missing = _missing_content(plan)
    if experiment is None:
        return Estimate(kind, None, {}, {}, None, None, None, missing)
    train, sample = train_estimate(experiment, kind, processes), _sample(experiment, kind)
    fit = fit_estimate(plan, experiment, kind, processes)
    flops = [None if part is None else part.flops for part in (train, sample, fit)]
    precision = None if fit is None else fit.precision
    on_this_machine = measured(experiment) if measure else assumed(experiment, *flops, fit_precision=precision)
    device = "cpu" if no_gpu() else "cuda"
    if not plan.nothing_to_do:
        lack = _lack_of_gpus(processes)
        if lack is not None and (device == "cuda" or sum(count or 0 for count in flops) > GPU_WORTHY):
            missing["GPU"] = lack
        missing |= plan_obstacles(plan, device, processes)
        if train is not None and device == "cpu" and processes == 1 and not missing.keys() & {"GPU", "train"}:
            shortage = _passes(experiment).shortage()
            missing |= {} if shortage is None else {"memory": shortage}
    images = _images(experiment)
    disk = _disk(experiment, images)
    backends = usable_backends(plan.recipe, device)
    changes = _initial_changes(plan)
    return Estimate(kind, experiment.config, images, disk, train, sample, on_this_machine, missing, backends, fit, changes)


def _passes(experiment: Experiment) -> Passes:
    """Those of a training on the CPU."""
    train, attention = experiment.recipe.train, experiment.recipe.attention
    assert train is not None, "there is an estimate of it"
    return Passes(train, experiment.costs, attention.keeps_weights, "cpu", ALONE)


def _lack_of_gpus(processes: int) -> str | None:
    """Why each process that starts here cannot have a GPU, and the cure; None if it can."""
    if (reason := no_gpu()) is not None:
        return reason
    count, gpus = local_world_size() if launched() else processes, gpu_count()
    if count <= gpus:
        return None
    return f"{count} processes need a GPU each, and this machine has {gpus}: start them on more machines."


def _initial_changes(plan: Plan) -> tuple[str, ...]:
    try:
        return tuple(initial_changes(plan))
    except WeightsError:
        # Listed as missing by ``unfit_weights``.
        return ()


def _missing_content(plan: Plan) -> dict[str, str]:
    unfit = {table: with_published(error) for table, error in unfit_weights(plan).items()}
    if plan.obstacle is None:
        return unfit
    missing = missing_content(plan.recipe, plan.experiment)
    blocked = {stage.name for stage in plan.stages if stage.action == "blocked"}
    reads_data = bool(blocked & {"fit", "tokenize"}) or ("reference" in blocked and opens_data(plan.recipe))
    if not reads_data and plan.experiment is not None:
        missing.pop("dataset", None)
    return unfit | {table: with_published(error) for table, error in missing.items()}


def _images(experiment: Experiment) -> dict[str, int | None]:
    # Recipes with imported tokens or released weights may have no stage that tokenizes.
    if Tokenize().upstream(experiment.recipe) is None:
        return {}
    counts: dict[str, int | None] = {}
    for split in experiment.splits:
        try:
            counts[split] = experiment.recipe.dataset.count(split)
        except (DatasetError, NotFetchedError):
            # Missing data is listed separately.
            counts[split] = None
    return counts


def _disk(experiment: Experiment, images: Mapping[str, int | None]) -> dict[str, int]:
    recipe, config, disk = experiment.recipe, experiment.config, dict[str, int]()
    row = config.seq_len * token_dtype(config.codebook_size).itemsize + LABEL_BYTES
    counts = [count for count in images.values() if count is not None]
    if counts and len(counts) == len(images):
        disk["tokens"] = sum(counts) * row
    if recipe.train is not None:
        disk["model"] = 4 * config.parameter_count()
        # Weights, moments and average; an old checkpoint is deleted once a new one is complete, unless kept.
        moments = 8 * config.parameter_count() - (4 * experiment.costs.hidden_weights() if recipe.train.optimizer == "muon" else 0)
        average = 0 if recipe.train.ema_decay is None else 4 * config.parameter_count()
        kept = 0 if recipe.train.keep_every is None else (recipe.train.steps - 1) // recipe.train.keep_every
        disk["checkpoints"] = (recipe.train.keep_checkpoints + 1 + kept) * (4 * config.parameter_count() + moments + average)
    if recipe.sample is not None:
        count, pixels = len(experiment.sample_classes) * recipe.sample.per_class, int(np.prod(experiment.image_shape))
        disk["samples"] = count * (row + pixels)
        if recipe.sample.npz:
            disk["samples.npz"] = count * pixels
    return disk


def _sample(experiment: Experiment, gpu: Gpu) -> SampleEstimate | None:
    recipe, sample, costs = experiment.recipe, experiment.recipe.sample, experiment.costs
    if sample is None:
        return None
    try:
        recipe.model.check_sampling(sample.precision, sample.kv_cache)
    except CapabilityError:
        # Listed as missing by ``plan_obstacles``.
        return None
    images = len(experiment.sample_classes) * sample.per_class
    guided = sample.guidance.guided_steps(experiment.config.seq_len)
    flops, seconds = 0, 0.0
    batches = _batches(images, sample.per_class, int(np.prod(experiment.image_shape)), sample.batch_size)
    for (batch, classes), count in batches.items():
        work = costs.sampling_flops(batch=batch, classes=classes, guided_steps=guided)
        traffic = costs.sampling_traffic(batch=batch, guided_steps=guided, precision=sample.precision)
        flops += count * work
        seconds += count * max(work / gpu.rates[MODEL_DTYPES[sample.precision]], traffic / gpu.bandwidth)
    batch = max(size for size, _ in batches)
    memory_on = partial(costs.sampling_bytes, batch=batch, guided=guided > 0, precision=sample.precision, kv_cache=sample.kv_cache)
    memory = memory_on(on_cpu=False)
    return SampleEstimate(
        images=images,
        batch=batch,
        flops=flops,
        memory=memory,
        cpu_memory=memory_on(on_cpu=True),
        fits=memory.total <= USABLE * gpu.memory,
        gpu_hours=seconds / UTILISATION / 3600,
    )


def _batches(count: int, per_class: int, image_bytes: int, batch_size: int) -> Counter[tuple[int, int]]:
    """The number of batches by (size, number of distinct classes), divided as ``stretches`` of the sample stage does.

    ``per_class`` samples in a row are of one class. With arrays, because there may be millions of batches.
    """
    rows = sample_rows(count, image_bytes, batch_size)
    stretch = rows * max(1, batch_size // rows)
    starts = (np.arange(0, count, stretch)[:, None] + np.arange(0, stretch, batch_size)).ravel()
    starts = starts[starts < count]
    stops = np.minimum(np.minimum(starts + batch_size, (starts // stretch + 1) * stretch), count)
    sizes, classes = stops - starts, (stops - 1) // per_class - starts // per_class + 1
    pairs, times = np.unique(sizes * MOST_SAMPLES + classes - 1, return_counts=True)
    return Counter(
        {(pair // MOST_SAMPLES, pair % MOST_SAMPLES + 1): many for pair, many in zip(pairs.tolist(), times.tolist(), strict=True)}
    )
