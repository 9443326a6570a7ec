"""What ranks do to checkpoints, for ``tests.processes``: a small model under DDP, FSDP2 or HSDP, with a state that all can tell."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rarkit.cache.output import StageOutput
from rarkit.cache.store import Store
from rarkit.engine.checkpoints import Checkpoints
from rarkit.errors import StoreError
from rarkit.runtime.ranks import Ranks
from rarkit.runtime.together import together


def state(sharding: str, ranks: int) -> dict[str, Tensor]:
    """Weights and moments of a model, whose rows do not divide among the ranks, and what is no DTensor under any sharding."""
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3), nn.Linear(3, 1))
    if sharding == "fsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    if sharding == "hsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicate", "shard")))
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    tensors: dict[str, Tensor] = {f"networks/model/{name}": weight for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters():
        tensors |= {f"optimizer/model/{name}/{moment}": value for moment, value in optimizer.state[weight].items()}
    return tensors | {"log/loss": torch.zeros(9, dtype=torch.float64), "log/step": torch.zeros(9, dtype=torch.int64)}


def numbers(name: str, tensor: Tensor) -> Tensor:
    """What a tensor of this name holds: random numbers, the same on all ranks."""
    drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())), dtype=torch.float64)
    return (drawn * 1000).to(tensor.dtype)


@torch.no_grad()
def filled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with ``numbers`` in them."""
    for name, tensor in tensors.items():
        whole = numbers(name, tensor)
        tensor.copy_(distribute_tensor(whole, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else whole)
    return tensors


def differing(tensors: dict[str, Tensor]) -> list[str]:
    """The names of those that do not hold ``numbers``."""
    wholes = {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}
    return [name for name, whole in wholes.items() if not torch.equal(whole, numbers(name, whole))]


def whole_tensors(folder: Path | str, step: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint, read without rarkit: by the lines of docs/training.md."""
    page = (Path(__file__).parents[2] / "docs/training.md").read_text()
    [block] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def whole_tensors" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    tensors: dict[str, Tensor] = names["whole_tensors"](folder, step)
    return tensors


@contextmanager
def grouped() -> Iterator[Ranks]:
    """The ranks of this process, with their process group."""
    with together() as ranks, ExitStack() as stack:
        if ranks.size > 1:
            dist.init_process_group("gloo")
            stack.callback(dist.destroy_process_group)
        yield ranks


@contextmanager
def begun(url: str, ranks: Ranks) -> Iterator[StageOutput]:
    """An output that the ranks write together."""
    with ExitStack() as stack:
        output, token = Store(url).output("train", "cafe"), ""
        if ranks.first:
            token = stack.enter_context(output.writing({})).token
        token = ranks.told(lambda: token)
        if not ranks.first:
            output.share(token)
        yield output
        ranks.meet()


def saved(url: str, sharding: str, asynchronous: bool) -> None:
    """Saves step 3, in which the tensors hold ``numbers``; they change at once when ``save`` has returned."""
    with grouped() as ranks:
        save(url, ranks, sharding, asynchronous)


def save(url: str, ranks: Ranks, sharding: str, asynchronous: bool) -> None:
    """What ``saved`` does, for ranks that have been grouped."""
    with begun(url, ranks) as output, Checkpoints(output, ranks, asynchronous=asynchronous) as checkpoints:
        tensors = filled(state(sharding, ranks.size))
        checkpoints.save(3, tensors, {"step": 3, "ranks": ranks.size})
        for tensor in tensors.values():
            tensor.detach().fill_(7)


def loaded(url: str, sharding: str, of: int) -> None:
    """Loads what ``of`` ranks have saved."""
    with grouped() as ranks:
        load(url, ranks, sharding, of)


def load(url: str, ranks: Ranks, sharding: str, of: int) -> None:
    """What ``loaded`` does, for ranks that have been grouped."""
    with begun(url, ranks) as output, Checkpoints(output, ranks) as checkpoints:
        tensors = state(sharding, ranks.size)
        step = checkpoints.latest()
        assert step == 3
        assert checkpoints.facts(step) == {"step": 3, "ranks": of}
        checkpoints.load(step, tensors)
        assert not differing(tensors), differing(tensors)


def loaded_and_saved(url: str, other: str, of: int) -> None:
    """Loads under HSDP what ``of`` ranks have saved, and saves it elsewhere without waiting."""
    with grouped() as ranks:
        load(url, ranks, "hsdp", of)
        save(other, ranks, "hsdp", True)


def failing(url: str) -> None:
    """Saves step 3; then three saves of step 4, in each of which one rank cannot do its part. All ranks hear why."""
    with grouped() as ranks, begun(url, ranks) as output, Checkpoints(output, ranks) as checkpoints:
        tensors = filled(state("fsdp", ranks.size))
        checkpoints.save(3, tensors, {"step": 3, "ranks": ranks.size})
        for how, expected in (
            ("lacks", "tensor 'optimizer/model/2.bias/exp_avg' is torch.float32 (3,) on rank 0 and missing on rank 1"),
            ("log", "tensor 'log/loss' is torch.float64 (9,) on rank 0 and torch.float64 (8,) on rank 1"),
            ("full", "the disk is full"),
        ):
            own = dict(tensors)
            if ranks.rank == 1 and how == "lacks":
                del own["optimizer/model/2.bias/exp_avg"]
            if ranks.rank == 1 and how == "log":
                own["log/loss"] = own["log/loss"][1:]
            if ranks.rank == 1 and how == "full":
                _full(output)
            with pytest.raises(StoreError) as refused:
                checkpoints.save(4, own, {"step": 4})
            assert expected in str(refused.value)
            assert checkpoints.steps() == [3]
        assert Checkpoints(output, ranks).latest() == 3


def _full(output: StageOutput) -> None:
    def writing_file(name: str) -> Any:
        raise StoreError("the disk is full")

    output.writing_file = writing_file  # type: ignore[method-assign]
