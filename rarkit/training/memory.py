"""What training holds in each process's memory, however weights are shared, and the passes that fit. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rarkit.engine.degrees import Degrees, degrees
from rarkit.engine.settings import TrainSettings
from rarkit.models.base import TrainingBytes, TrainingCosts

USABLE = 0.9
"""Usable share of a GPU's memory; driver, libraries and fragmentation take the rest."""
BLOCKS_AT_ONCE = 2
"""Blocks whose weights are gathered at a time with FSDP: the one that computes, and the next."""


def training_memory(
    settings: TrainSettings, costs: TrainingCosts, degrees: Degrees, *, precision: str, keeps_weights: bool
) -> TrainingBytes:
    """The memory of one process.

    Args:
        settings: the recipe's ``[train]``.
        costs: those of the model, or of another task.
        degrees: how a batch is divided.
        precision: autocast's dtype, or ``"float32"``.
        keeps_weights: whether attention saves all its weights for the backward pass.
    """
    held = costs.training_bytes(
        micro_batch=degrees.micro,
        precision=precision,
        checkpointing=int(settings.activation_checkpointing),
        keeps_weights=keeps_weights,
    )
    # Of hidden matrices Muon has one moment, AdamW two.
    optimizer = held.optimizer - (4 * costs.hidden_weights() if settings.optimizer == "muon" else 0)
    held = replace(held, optimizer=optimizer, average=0 if settings.ema_decay is None else held.average or held.weights)
    if settings.data_parallel == "ddp" or degrees.size == 1:
        return held
    shard = degrees.shard
    return replace(
        held,
        weights=-(-held.weights // shard),
        # Between passes that are added up, gradients are not exchanged, and therefore whole.
        gradients=held.gradients if degrees.accumulation > 1 else -(-held.gradients // shard),
        optimizer=-(-held.optimizer // shard),
        average=-(-held.average // shard),
        best=-(-held.best // shard),
        # The gathered weights are in that dtype already.
        casts=0,
        gathered=_gathered(settings, costs, held.weights // 4, 4 if precision == "float32" else 2),
    )


def _gathered(settings: TrainSettings, costs: TrainingCosts, count: int, element: int) -> int:
    """Bytes of whole weights in use, and of one block's gradients before the processes share them."""
    blocks, size = costs.blocks()
    at_once = min(blocks, BLOCKS_AT_ONCE) if settings.reshard_after_forward else blocks
    largest = max(size, count - blocks * size)
    return element * (count - (blocks - at_once) * size) + 4 * largest


def fitting_micro_batch(share: int, total: Callable[[int], int], free: float) -> int | None:
    """The largest divisor of a process's share for which the memory is enough; None if there is none.

    Args:
        share: samples of a process in a step, at least 1.
        total: bytes that training takes with passes of so many samples.
        free: bytes that there are; ``USABLE`` of them are used.
    """
    divisors = (size for size in range(share, 0, -1) if share % size == 0)
    return next((size for size in divisors if total(size) <= USABLE * free), None)


def largest_micro_batch(
    settings: TrainSettings, costs: TrainingCosts, processes: int, free: float, *, precision: str, keeps_weights: bool
) -> int | None:
    """The most images of a pass for which each process's memory is enough, whatever ``micro_batch_size`` is; None if none is.

    Arguments are those of ``training_memory`` and ``fitting_micro_batch``.

    Raises:
        RecipeError: the batch cannot be divided among so many processes.
    """
    unset = settings.model_copy(update={"micro_batch_size": None})

    def total(micro: int) -> int:
        divided = degrees(unset, processes, micro)
        return training_memory(unset, costs, divided, precision=precision, keeps_weights=keeps_weights).total

    return fitting_micro_batch(degrees(unset, processes).share, total, free)


def in_words(memory: TrainingBytes) -> str:
    """The memory by use, in GB: ``41.2 GB: weights 1.8, gradients 1.8, …``."""
    parts = ", ".join(f"{use} {held / 1e9:.1f}" for use, held in memory.uses.items())
    return f"{memory.total / 1e9:.1f} GB: {parts}"
