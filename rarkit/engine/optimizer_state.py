"""The state of training as flat tensors by name, the same on one process and on many: what checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def network_tensors(name: str, network: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a network, under ``networks/<name>/``."""
    return {f"networks/{name}/{key}": tensor.detach() for key, tensor in network.state_dict().items()}


def optimizer_tensors(name: str, network: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """The state of a network's optimizers, under ``optimizer/<name>/<weight>/<what>``; all weights must have state."""
    names: dict[Tensor, str] = {weight: key for key, weight in network.named_parameters()}
    return {
        f"optimizer/{name}/{names[weight]}/{what}": tensor
        for optimizer in optimizers
        for weight in _weights(optimizer)
        for what, tensor in optimizer.state[weight].items()
        if isinstance(tensor, Tensor)
    }


@torch.no_grad()
def begin_state(optimizer: Optimizer) -> None:
    """Gives weights without state that which they have before their first step, which torch's optimizers make with that step.

    So a checkpoint has the same tensors before any step, and of weights that are frozen or had no gradient yet. All weights stay as
    they are: the step is one at a learning rate of 0 along a gradient of 0.
    """
    gradients = {weight: weight.grad for weight in _weights(optimizer)}
    begun = [weight for weight in gradients if not optimizer.state.get(weight)]
    if not begun:
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for weight in gradients:
        weight.grad = None
    for weight in begun:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for weight, gradient in gradients.items():
        weight.grad = gradient
    for weight in begun:
        for tensor in optimizer.state[weight].values():
            if isinstance(tensor, Tensor):
                tensor.zero_()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _weights(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
