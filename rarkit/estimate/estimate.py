"""What a run will need, by arithmetic: parameters, disk, FLOPs, memory, time; and what is missing here. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from rarkit.errors import DatasetError
from rarkit.models.rar.config import RARConfig
from rarkit.recipe.schema import Recipe
from rarkit.models.rar.sampling_costs import MODEL_DTYPES, SamplingBytes, sampling_bytes, sampling_flops, sampling_traffic
from rarkit.runtime.machine import GPU_WORTHY, GPUS, Gpu, no_gpu
from rarkit.pipeline.preflight import cure, missing_content, part_obstacles
from rarkit.pipeline.plan import Plan
from rarkit.stages.reference import opens_data
from rarkit.stages.sample import sample_labels
from rarkit.stages.stretches import sample_rows, stretches
from rarkit.stages.tokenize import Tokenize, token_dtype
from rarkit.stages.train import rar_config
from rarkit.models.rar.training_costs import TrainingBytes, step_flops, training_bytes

UTILISATION = 0.4
"""The share of a GPU's rate (or, where memory is the limit, of its bandwidth) that is assumed to be reached."""
USABLE = 0.9
"""The share of a GPU's memory that is planned with: the driver, libraries and fragments take the rest."""
LABEL_BYTES = 4


@final
@dataclass(frozen=True)
class TrainNeeds:
    """What training takes, on one GPU."""

    steps: int
    step_flops: int
    micro_batch: int
    memory: TrainingBytes
    fits: bool
    """Whether the memory is enough on the GPU that is assumed."""
    largest_micro_batch: int | None
    """The largest divisor of the batch that fits; None if not even one image does."""
    gpu_hours: float

    @property
    def flops(self) -> int:
        return self.steps * self.step_flops


@final
@dataclass(frozen=True)
class SampleNeeds:
    """What drawing the samples takes, on one GPU; decoding their tokens to images is not counted."""

    images: int
    batch: int
    flops: int
    memory: SamplingBytes
    cpu_memory: SamplingBytes
    """The same batch on a CPU, decoded with the compiled kernels."""
    fits: bool
    """Whether the memory is enough on the GPU that is assumed."""
    gpu_hours: float


@final
@dataclass(frozen=True)
class Needs:
    """What a recipe needs as a whole, whatever is in the store; None and empty where images of unknown shape leave it open."""

    gpu: Gpu
    model: RARConfig | None
    images: Mapping[str, int | None]
    """How many images of each split are tokenized; None where only opening the data tells."""
    disk: Mapping[str, int]
    """Bytes in the store (and of ``samples.npz`` beside the report), by what takes them."""
    train: TrainNeeds | None
    sample: SampleNeeds | None
    missing: Mapping[str, str]
    """What is not here: by name, with how to get it."""


def needs(plan: Plan, gpu: str = "h100") -> Needs:
    """What carrying out a plan's recipe takes, on a GPU of ``GPUS``, and what is missing on this machine."""
    recipe, kind = plan.recipe, GPUS[gpu]
    missing = _missing_content(plan)
    if "dataset" in missing and not _shape_known(recipe):
        return Needs(kind, None, {}, {}, None, None, missing)
    config = rar_config(recipe)
    images = _images(recipe)
    train, sample = _train(recipe, config, kind), _sample(recipe, config, kind)
    if not plan.nothing_to_do:
        flops = (train.flops if train else 0) + (sample.flops if sample else 0)
        reason = no_gpu()
        if reason is not None and flops > GPU_WORTHY:
            missing["GPU"] = reason
        missing |= part_obstacles(recipe, "cuda" if reason is None else "cpu")
    return Needs(kind, config, images, _disk(recipe, config, images), train, sample, missing)


def _missing_content(plan: Plan) -> dict[str, str]:
    if plan.obstacle is None:
        return {}
    found = missing_content(plan.recipe)
    blocked = {stage.name for stage in plan.stages if stage.action == "blocked"}
    wanted = bool(blocked & {"fit", "tokenize"}) or ("reference" in blocked and opens_data(plan.recipe))
    if not wanted and _shape_known(plan.recipe):
        found.pop("dataset", None)
    return {table: cure(error) for table, error in found.items()}


def _shape_known(recipe: Recipe) -> bool:
    try:
        recipe.dataset.info()
    except DatasetError:
        return False
    return True


def _images(recipe: Recipe) -> dict[str, int | None]:
    # Stages that open the images are left out where tokens are imported, or weights released.
    if not Tokenize().wanted(recipe):
        return {}
    found: dict[str, int | None] = {}
    for split in recipe.dataset.splits():
        try:
            found[split] = recipe.dataset.count(split)
        except DatasetError:
            # What is missing is told apart.
            found[split] = None
    return found


def _disk(recipe: Recipe, config: RARConfig, images: Mapping[str, int | None]) -> dict[str, int]:
    found, info = {}, recipe.dataset.info()
    row = config.seq_len * token_dtype(config.codebook_size).itemsize + LABEL_BYTES
    counts = [count for count in images.values() if count is not None]
    if counts and len(counts) == len(images):
        found["tokens"] = sum(counts) * row
    if recipe.train is not None:
        found["model"] = 4 * config.parameter_count()
        if recipe.train.checkpoint_every < recipe.train.steps:
            # Weights and two moments; the older checkpoint goes when the newer is whole.
            found["checkpoints"] = 2 * 12 * config.parameter_count()
    if recipe.sample is not None:
        count, pixels = len(sample_labels(recipe)), info.height * info.width * info.channels
        found["samples"] = count * (row + pixels)
        if recipe.sample.npz:
            found["samples.npz"] = count * pixels
    return found


def _train(recipe: Recipe, config: RARConfig, gpu: Gpu) -> TrainNeeds | None:
    train = recipe.train
    if train is None:
        return None

    def memory(micro_batch: int) -> TrainingBytes:
        return training_bytes(
            config,
            micro_batch=micro_batch,
            precision=train.precision,
            checkpointing=train.activation_checkpointing,
            keeps_weights=recipe.attention.keeps_weights,
        )

    def fits(micro_batch: int) -> bool:
        return memory(micro_batch).total <= USABLE * gpu.memory

    micro_batch = train.micro_batch_size or train.batch_size
    flops = step_flops(config, train.batch_size, checkpointing=train.activation_checkpointing)
    divisors = (size for size in range(train.batch_size, 0, -1) if train.batch_size % size == 0)
    return TrainNeeds(
        steps=train.steps,
        step_flops=flops,
        micro_batch=micro_batch,
        memory=memory(micro_batch),
        fits=fits(micro_batch),
        largest_micro_batch=next((size for size in divisors if fits(size)), None),
        gpu_hours=train.steps * flops / (UTILISATION * gpu.rates[train.precision]) / 3600,
    )


def _sample(recipe: Recipe, config: RARConfig, gpu: Gpu) -> SampleNeeds | None:
    sample = recipe.sample
    if sample is None:
        return None
    labels_M = sample_labels(recipe)
    guided = sample.guidance.guided_steps(config.seq_len)
    flops, seconds = 0, 0.0
    batches = _batches(recipe, labels_M)
    for (batch, classes), count in batches.items():
        work = sampling_flops(config, batch=batch, classes=classes, guided_steps=guided)
        traffic = sampling_traffic(config, batch=batch, guided_steps=guided, dtype=sample.precision)
        flops += count * work
        seconds += count * max(work / gpu.rates[MODEL_DTYPES[sample.precision]], traffic / gpu.bandwidth)
    batch = max(size for size, _ in batches)
    held = partial(
        sampling_bytes, config, batch=batch, guided=guided > 0, dtype=sample.precision, float8_cache=sample.kv_cache == "float8"
    )
    memory = held()
    return SampleNeeds(
        images=len(labels_M),
        batch=batch,
        flops=flops,
        memory=memory,
        cpu_memory=held(on_cpu=True, compiled=True),
        fits=memory.total <= USABLE * gpu.memory,
        gpu_hours=seconds / UTILISATION / 3600,
    )


def _batches(recipe: Recipe, labels_M: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Counter[tuple[int, int]]:
    """How many batches there are of each size and number of distinct classes, as the sample stage cuts them."""
    assert recipe.sample is not None
    info, batch_size = recipe.dataset.info(), recipe.sample.batch_size
    rows = sample_rows(len(labels_M), info.height * info.width * info.channels, batch_size)
    cuts = (cut for stretch in stretches(len(labels_M), rows, batch_size) for cut in stretch.batches(batch_size))
    return Counter((stop - start, len(np.unique(labels_M[start:stop]))) for start, stop in cuts)
