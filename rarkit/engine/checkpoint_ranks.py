"""What the ranks of a run do together when they save and load: agree on tensors, share them, and fail as one."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from rarkit.errors import RankError, StoreError
from rarkit.runtime.ranks import Ranks

Own = TypeVar("Own")

_ALONE = r"torch\.distributed is disabled, unavailable or uninitialized"


def agree(tensors: Mapping[str, Tensor], step: int, group: dist.ProcessGroup | None) -> None:
    """Checks that all ranks save the same step, and tensors of the same names, shapes and types.

    Raises:
        StoreError: they do not; on all ranks, with the first difference.
    """
    if group is None:
        return
    own = {"step": f"{step:,}"} | {f"tensor {name!r}": f"{tensor.dtype} {tuple(tensor.shape)}" for name, tensor in tensors.items()}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    if len(set(_of_all(digest, group))) == 1:
        return
    first, *others = _of_all(own, group)
    for rank, other in enumerate(others, 1):
        for what in sorted(first.keys() | other.keys()):
            if first.get(what) != other.get(what):
                raise StoreError(
                    f"the ranks cannot save a checkpoint together: {what} is {first.get(what, 'missing')} on rank 0 and "
                    f"{other.get(what, 'missing')} on rank {rank}. All ranks need the same recipe, data and version of rarkit."
                )


def _of_all(own: Own, group: dist.ProcessGroup) -> list[Own]:
    gathered: list[Own] = [own] * dist.get_world_size(group)
    dist.all_gather_object(gathered, own, group)
    return gathered


def share(tensors: Mapping[str, Tensor], rank: int, size: int) -> dict[str, Tensor]:
    """What a rank saves: its shards, and of the tensors that all ranks have about as many bytes as each other rank.

    The planner of PyTorch would divide them too, but after each rank has staged all of them on its host.
    """
    taken = [0] * size
    own: dict[str, Tensor] = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    whole = [name for name in tensors if name not in own]
    for name in sorted(whole, key=lambda name: (-tensors[name].nbytes, name)):
        owner = taken.index(min(taken))
        taken[owner] += tensors[name].nbytes
        if owner == rank:
            own[name] = tensors[name]
    return own


@contextmanager
def failing_together(ranks: Ranks) -> Iterator[None]:
    """Raises the error of the rank that failed in place of PyTorch's, which is no Exception and lists tracebacks.

    Raises:
        RankError: another rank was stopped.
    """
    try:
        yield
    except CheckpointException as failed:
        rank = ranks.rank if ranks.rank in failed.failures else min(failed.failures)
        cause = failed.failures[rank][0]
        if rank != ranks.rank and not isinstance(cause, Exception):
            message = f"rank {rank} was stopped while a checkpoint was saved or loaded. Start the run again to continue."
            raise RankError(message, told=not ranks.first) from failed
        raise cause from failed


@contextmanager
def without_warning(*, for_good: bool = False) -> Iterator[None]:
    """Without PyTorch's remark that there is only one process; ``for_good`` where a thread goes on after the body."""
    if for_good:
        warnings.filterwarnings("ignore", message=_ALONE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_ALONE)
        yield
