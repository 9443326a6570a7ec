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
        micro: samples of a pass, where ``micro_batch_size`` is not set; None means a process's whole share.

    Raises:
        RecipeError: it cannot be divided so.
    """
    batch = settings.batch_size
    if batch % size:
        fitting = [count for count in range(1, size) if batch % count == 0]
        raise RecipeError(
            f"train.batch_size {batch} cannot be shared evenly by {size} processes. Start {fitting[-1]} processes, or set "
            f"train.batch_size to {batch - batch % size or size} or {batch + size - batch % size}."
        )
    share = batch // size
    micro = settings.micro_batch_size or min(micro or share, share)
    if micro > share or share % micro:
        fitting = [count for count in range(1, share + 1) if share % count == 0 and count <= micro]
        raise RecipeError(
            f"train.micro_batch_size {micro} does not divide the {share} images of train.batch_size {batch} that each of {size} "
            f"processes has. Set it to {fitting[-1]}, or leave it out."
        )
    return Degrees(size, _shard(settings, size), share, micro)


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
        raise RecipeError(
            f"{given} cannot be had with {size} processes: replicate × shard must be their number. Start as many, or leave one of "
            "the two out."
        )
    return shard
