"""What to say where the memory does not suffice for a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rarkit.engine.degrees import Degrees
from rarkit.engine.settings import TrainSettings
from rarkit.engine.task import Task
from rarkit.errors import CapabilityError, sentences

HOST = ("can't allocate memory", "not enough memory")
"""Words of torch where the host's memory does not suffice, which has no exception of its own."""
GB = 1e9


@contextmanager
def saying_what_to_lower(task: Task, settings: TrainSettings, degrees: Degrees, precision: str, device: str) -> Iterator[None]:
    """Around training: where the memory does not suffice, says which settings to lower.

    Raises:
        CapabilityError: the memory does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in HOST)
        if not is_known:
            raise
        message = _message(task, settings, degrees, precision, device)
        raise CapabilityError(message) from error


def _message(task: Task, settings: TrainSettings, degrees: Degrees, precision: str, device: str) -> str:
    needed = task.memory(degrees.micro, precision)
    estimate = ""
    if needed is not None:
        held, activations = needed
        held //= degrees.shard
        estimate = (
            f"By estimate, a process needs {_gb(held + activations)}: {_gb(held)} for weights, gradients and optimizer, and "
            f"{_gb(activations)} for the activations of {degrees.micro:,} images"
        )
    said = f"the memory of {_room(device)} does not suffice for this training"
    return sentences(*filter(None, (said, estimate, _cures(settings, degrees))))


def _room(device: str) -> str:
    if not device.startswith("cuda"):
        return f"this machine ({device})"
    return f"{device} ({_gb(torch.cuda.get_device_properties(device).total_memory)})"


def _cures(settings: TrainSettings, degrees: Degrees) -> str:
    cures = []
    if degrees.micro > 1:
        smaller = next(size for size in range(degrees.micro // 2, 0, -1) if degrees.share % size == 0)
        cures.append(f"set train.micro_batch_size = {smaller} (it is {degrees.micro})")
    if not settings.activation_checkpointing:
        cures.append("set train.activation_checkpointing = true")
    if settings.data_parallel == "ddp":
        cures.append("share the weights among several GPUs with train.data_parallel = 'fsdp'")
    elif degrees.shard < degrees.size:
        cures.append(f"share each copy of the weights among more processes (train.shard, now {degrees.shard})")
    if not cures:
        return "Train a smaller model, or on more memory"
    first, *others = cures
    said = f"{first[0].upper()}{first[1:]}"
    return said if not others else f"{said}; if that is not enough, {', then '.join(others)}"


def _gb(size: float) -> str:
    return f"{size / GB:,.1f} GB" if size >= GB / 10 else f"{size / 1e6:,.1f} MB"
