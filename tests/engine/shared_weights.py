"""Three steps of a small network by optimizers, clipping and average: in one process, or with its weights shared by all ranks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rarkit.engine.average import Average
from rarkit.engine.gradients import clip_gradients
from rarkit.engine.optimizer import make_optimizers, set_learning_rates
from rarkit.engine.settings import TrainSettings
from rarkit.engine.shards import like, whole

STEPS, MOST = 3, 0.5
CLIPPED = 1
"""The steps before it have gradients below the largest norm."""


class Net(nn.Module):
    """Sizes that two do not divide, and a matrix with fewer rows than there are ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(3, 7)
        self.blocks = nn.ModuleList([nn.Linear(7, 5), nn.Linear(5, 9), nn.Linear(9, 1)])
        self.head = nn.Linear(1, 4)


def settings(optimizer: str) -> TrainSettings:
    rates = {"learning_rate": 0.05, "warmup_steps": 1, "weight_decay": 0.1}
    if optimizer == "muon":
        rates["muon_learning_rate"] = 0.1
    return TrainSettings(steps=9, batch_size=1, optimizer=optimizer, **rates)


def network() -> Net:
    net, generator = Net(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(generator=generator))
    return net


def gradients(net: Net, step: int) -> dict[str, Tensor]:
    """A gradient for each weight, the same in each process."""
    generator = torch.Generator().manual_seed(10 + step)
    scale = 1.0 if step >= CLIPPED else 0.01
    return {name: scale * torch.empty(weight.shape).normal_(generator=generator) for name, weight in net.named_parameters()}


def steps(net: Net, optimizer: str) -> dict[str, Tensor]:
    """Takes three steps; returns norms, clipped gradients, momenta, weights and averages, whole, by name."""
    chosen, found = settings(optimizer), {}
    optimizers, average = make_optimizers(net, chosen), Average({"model": net}, 0.6)
    for step in range(STEPS):
        given = gradients(net, step)
        for name, weight in net.named_parameters():
            weight.grad = like(weight, given[name])
        found[f"norm {step}"] = clip_gradients(net.parameters(), MOST)
        found |= {f"gradient {step} {name}": whole(weight.grad).clone() for name, weight in net.named_parameters()}
        set_learning_rates(optimizers, step + 1, chosen)
        for each in optimizers:
            each.step()
        average.update(step)
    for each in optimizers:
        for place, state in enumerate(each.state.values()):
            found |= {f"{type(each).__name__} {place} {name}": whole(value) for name, value in state.items()}
    found |= {f"weight {name}": whole(weight.detach()) for name, weight in net.named_parameters()}
    found |= {name: whole(tensor) for name, tensor in average.state().items()}
    with average.in_networks():
        found |= {f"evaluated {name}": whole(weight.detach()).clone() for name, weight in net.named_parameters()}
    found |= {f"again {name}": whole(weight.detach()) for name, weight in net.named_parameters()}
    return {name: tensor.clone() for name, tensor in found.items()}


def shared(folder: Path) -> None:
    """In a rank: takes the steps with sharded weights; the last rank leaves what it found."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for optimizer in ("adamw", "muon"):
        net = network()
        for block in net.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(net, mesh=mesh)
        found = steps(net, optimizer)
        if dist.get_rank() == dist.get_world_size() - 1:
            torch.save(found, folder / f"{optimizer}.pt")
    dist.destroy_process_group()
