"""What a checkpoint has of optimizers: the same tensors whichever weights have been trained so far."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarkit.engine.optimizer import make_optimizers
from rarkit.engine.optimizer_state import begin_state, optimizer_tensors
from rarkit.engine.settings import TrainSettings


def network():
    net = nn.Module()
    net.blocks = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 3)])
    net.head = nn.Linear(3, 2)
    return net


def tensors(net, optimizers):
    for optimizer in optimizers:
        begin_state(optimizer)
    return optimizer_tensors("model", net, optimizers)


def layout(found):
    return {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_that_were_not_trained_have_the_state_of_before_the_first_step(optimizer):
    """Frozen ones, say: a training that goes on loads into the tensors of a new one."""
    chosen, net = TrainSettings(steps=4, batch_size=1, optimizer=optimizer), network()
    fresh = network()
    expected = layout(tensors(fresh, make_optimizers(fresh, chosen)))
    assert len({name.rpartition("/")[0] for name in expected}) == 6, "weights and biases of three layers"
    net.blocks[0].requires_grad_(False)
    optimizers = make_optimizers(net, chosen)
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight) if weight.requires_grad else None
    for each in optimizers:
        for group in each.param_groups:
            group["lr"] = 0.1
        each.step()
    trained = {name: tensor.clone() for name, tensor in optimizer_tensors("model", net, optimizers).items()}
    weights = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    found = tensors(net, optimizers)
    assert layout(found) == expected
    assert trained.keys() < found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in trained.items())
    assert not any(tensor.any() for name, tensor in found.items() if name not in trained)
    assert all(torch.equal(weight, weights[name]) for name, weight in net.named_parameters())
    assert all((weight.grad is None) != weight.requires_grad for weight in net.parameters())
    assert {group["lr"] for each in optimizers for group in each.param_groups} == {0.1}
