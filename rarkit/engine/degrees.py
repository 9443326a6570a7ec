"""How a global batch is divided among processes and passes. Arithmetic, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError


@final
@dataclass(frozen=True)
class Degrees:
    """The division of each step's batch: ``size`` processes, each with ``share`` samples in passes of ``micro``."""

    size: int
    """Processes."""
    shard: int
    """Processes that hold one copy of the weights among them; 1 if each holds all."""
    share: int
    """Samples of a process."""
    micro: int
    """Samples of a forward and backward pass."""

    @property
    def replicate(self) -> int:
        """Copies of the weights."""
        return self.size // self.shard

    @property
    def accumulation(self) -> int:
        """Passes whose gradients are added up."""
        return self.share // self.micro

    def passes(self, rank: int) -> list[NDArray[np.int64]]:
        """The indices into the global batch of each pass of a process: the processes follow each other in it."""
        first = rank * self.share
        return [np.arange(start, start + self.micro) for start in range(first, first + self.share, self.micro)]


def degrees(settings: TrainSettings, size: int, micro: int | None = None) -> Degrees:
    """Divides the batch of ``settings`` among ``size`` processes.

    Args:
        settings: the recipe's ``[train]``.
        size: the number of processes.
        micro: the most samples of a pass, where ``micro_batch_size`` is not set: a pass has the largest number up to it that
            divides a process's share. None means the whole share.

    Raises:
        RecipeError: it cannot be divided so.
    """
    batch = settings.batch_size
    if batch % size:
        fitting = [count for count in range(1, size) if batch % count == 0]
        fewer = f"{fitting[-1]} process{'' if fitting[-1] == 1 else 'es'}"
        raise RecipeError(
            f"train.batch_size {batch} cannot be shared evenly by {size} processes. Start {fewer}, or set "
            f"train.batch_size to {batch - batch % size or size} or {batch + size - batch % size}."
        )
    share = batch // size
    given = settings.micro_batch_size
    largest = _largest_divisor(share, given or micro or share)
    if given not in (None, largest):
        raise RecipeError(
            f"train.micro_batch_size {given} does not divide the {share} images of train.batch_size {batch} that each of {size} "
            f"processes has. Set it to {largest}, or leave it out."
        )
    return Degrees(size, _shard(settings, size), share, largest)


def _largest_divisor(share: int, most: int) -> int:
    return next(count for count in range(min(most, share), 0, -1) if share % count == 0)


def resumed_micro(share: int, kept: int, processes: int, size: int, micro: int | None) -> int | None:
    """Samples of a pass, at most, of a training that goes on from a checkpoint.

    Args:
        share: samples of a process.
        kept: those of a pass until then.
        processes: the number of processes until then.
        size: the number of processes now.
        micro: the most samples that the memory holds in a pass now; None means any number.

    Returns:
        ``kept``, which stays as it was resolved at the start; under another number of processes only where it still divides the
        share and is no more than ``micro``, else ``micro``.
    """
    if processes == size or (share % kept == 0 and (micro is None or kept <= micro)):
        return kept
    return micro


def _shard(settings: TrainSettings, size: int) -> int:
    if settings.data_parallel == "ddp":
        return 1
    shard, replicate = settings.shard, settings.replicate
    if shard is None:
        shard = size // (replicate or 1)
    if shard * (replicate or size // shard) != size:
        given = " and ".join(
            f"train.{name} {count}" for name, count in (("replicate", replicate), ("shard", settings.shard)) if count is not None
        )
        processes = "1 process" if size == 1 else f"{size} processes"
        raise RecipeError(
            f"{given} cannot be had with {processes}: replicate × shard must be their number. Start as many, or leave one of the "
            "two out."
        )
    return shard
