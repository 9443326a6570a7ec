"""What to say where the memory does not suffice for a training. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rarkit.engine.degrees import Degrees
from rarkit.engine.settings import TrainSettings
from rarkit.engine.task import Task
from rarkit.errors import CapabilityError, sentences

HOST = ("can't allocate memory", "not enough memory")
"""Words of torch where the host's memory does not suffice, which has no exception of its own."""


@contextmanager
def saying_what_to_lower(
    task: Task, settings: TrainSettings, degrees: Degrees, precision: str, device: str, part: str | None = None
) -> Iterator[None]:
    """Around training: where the memory does not suffice, says which settings to lower.

    Args:
        task: what is trained.
        settings: as it is trained.
        degrees: how the batch is divided.
        precision: autocast's dtype, or ``"float32"``.
        device: a torch device string.
        part: the table of the recipe that has the settings, if it is not ``[train]``.

    Raises:
        CapabilityError: the memory does not suffice.
    """
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in HOST)
        if not is_known:
            raise
        needed = task.memory(degrees, precision)
        said = [f"the memory of {_room(device)} does not suffice for this training"]
        if needed is not None:
            said.append(f"By estimate, a process needs {needed}, with {degrees.micro:,} images per pass")
        cure = _cures(settings, degrees) if part is None else lower_in(part)
        raise CapabilityError(sentences(*said, cure[0].upper() + cure[1:])) from error


def lower_in(part: str) -> str:
    """What to do where the settings of a part decide; ``part`` is its table in the recipe."""
    return f"choose a smaller batch or network in [{part}]"


def advice(settings: TrainSettings, degrees: Degrees) -> str:
    """The settings that take less memory, besides smaller passes: of those that are not set yet."""
    ways = []
    if int(settings.activation_checkpointing) != 1:
        ways.append("set train.activation_checkpointing = true")
    if settings.data_parallel == "ddp":
        more = "" if degrees.size > 1 else ", in several processes (torchrun)"
        ways.append(f'set train.data_parallel = "fsdp"{more}')
    elif degrees.replicate > 1:
        ways.append("lower train.replicate")
    elif not settings.reshard_after_forward:
        ways.append("set train.reshard_after_forward = true")
    elif degrees.accumulation > 1:
        ways.append("start more processes, so that nothing is added up")
    return ", or ".join([*ways, "choose a smaller model"])


def _room(device: str) -> str:
    if not device.startswith("cuda"):
        return f"this machine ({device})"
    import torch

    return f"{device} ({torch.cuda.get_device_properties(device).total_memory / 1e9:.1f} GB)"


def _cures(settings: TrainSettings, degrees: Degrees) -> str:
    ways = advice(settings, degrees)
    if degrees.micro > 1:
        smaller = next(size for size in range(degrees.micro // 2, 0, -1) if degrees.share % size == 0)
        ways = f"set train.micro_batch_size = {smaller} (it is {degrees.micro}), or {ways}"
    return ways
