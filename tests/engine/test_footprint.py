"""What a training takes, found without it: held against what PyTorch allocates and keeps.

Shape letters: B samples, C channels, H and W height and width.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from rarkit.engine.degrees import Degrees
from rarkit.engine.footprint import Footprint
from rarkit.engine.optimizer_state import network_tensors
from rarkit.engine.planned import PlanEnds, Planned
from rarkit.engine.trainer import Trainer
from rarkit.training import Learning, Losses, Task, TrainSettings
from tests.models.measured import peak

SIDE, BEGINS = 32, 3
SETTINGS = TrainSettings(steps=5, batch_size=16, ema_decay=0.9, precision="float32")


class Maker(nn.Module):
    """Convolutions with norms, a buffer, a frozen weight, one that has two names, and a flag that its pass reads."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(*sizes, 3, padding=1) for sizes in pairwise((3, 24, 32, 24))])
        self.norms = nn.ModuleList([nn.GroupNorm(4, 24), nn.BatchNorm2d(32), nn.GroupNorm(4, 24)])
        self.out = nn.Conv2d(24, 3, 3, padding=1)
        self.same, self.frozen = self.out, nn.Parameter(torch.ones(3, 1, 1), requires_grad=False)
        self.register_buffer("begun", torch.tensor(True))

    def forward(self, x_BCHW):
        if not self.begun:
            raise AssertionError("the flag has lost its value")
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x_BCHW = nn.functional.silu(norm(layer(x_BCHW)))
        return self.frozen * self.out(x_BCHW)


class Made(Task):
    """A network, another one that judges what it makes and begins late, and weights that belong to neither."""

    def __init__(self):
        self.networks = {"maker": Maker(), "judge": nn.Sequential(nn.Conv2d(3, 64, 5), nn.GELU(), nn.Conv2d(64, 1, 5))}
        self.fixed = torch.randn(32, 3, 3, 3)

    def batch(self, step, indices_B):
        self.judges = step >= BEGINS
        return {"images": torch.randn(len(indices_B), 3, SIDE, SIDE)}

    def loss(self, name, network, batch):
        if name == "judge":
            return Losses(network(batch["images"]).square().mean())
        made = network(batch["images"])
        one, other = (nn.functional.conv2d(images, self.fixed) for images in (made, batch["images"]))
        loss = (one - other).square().mean()
        if self.judges:
            # A gradient inside the loss.
            detached = made.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.networks["judge"](detached).mean(), detached)
            loss = loss - (gradient * made).sum()
        return Losses(loss)

    def blocks(self, name):
        return list(self.networks[name].layers) if name == "maker" else ()


def planned(task=None, **changes):
    settings = SETTINGS.model_copy(update=changes)
    with pytest.raises(PlanEnds) as end:
        Learning(only_plans=True).train(task or Made(), settings, seed=0, best_every=1)
    return end.value.planned


def trainer(precision="float32", samples=16):
    return Trainer(Made(), SETTINGS, seed=0, device="cpu", degrees=Degrees(1, 1, samples, samples), precision=precision)


def really(precision, samples, step):
    """The bytes that the passes of each network allocate at most, beyond gradients."""
    whole, found = trainer(precision, samples), {}
    for name, network in whole.networks.items():
        for weight in network.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
        found[name] = peak(lambda name=name: whole.gradients(name, step))
    return found


@pytest.mark.parametrize(("precision", "steps", "workspace"), [("float32", 3, 0.01), ("bfloat16", 3, 0.1), ("float32", 5, 0.1)])
def test_passes_take_what_pytorch_allocates(precision, steps, workspace):
    """By its own account, in which the CPU's convolutions have a workspace: in bfloat16, and to a single channel."""
    footprint = Footprint(planned(steps=steps), precision)
    for samples in (4, 16):
        found, real = footprint.passes(samples)["maker"], really(precision, samples, steps - 1)["maker"]
        # What belongs to no network is there anyway.
        outside = 32 * 27 * 4
        assert found.peak - outside == pytest.approx(real, rel=workspace)


def test_what_begins_late_counts():
    """In the first step there is no judge."""
    real = {step: really("float32", 16, step)["maker"] for step in (0, SETTINGS.steps - 1)}
    found = Footprint(planned(), "float32").passes(16)["maker"].peak
    assert 1.2 * real[0] < found < 1.1 * real[4]


def test_flops_are_those_of_convolutions():
    def convolution(samples, inputs, outputs, kernel, side):
        return 2 * samples * inputs * outputs * kernel**2 * side**2

    found = Footprint(planned(), "float32").passes(8)
    layers = [(3, 24), (24, 32), (32, 24), (24, 3)]
    forward = [convolution(8, *sizes, 3, SIDE) for sizes in layers]
    # The first layer's inputs, the images, need no gradient.
    maker = 3 * sum(forward) - forward[0]
    features = 3 * convolution(8, 3, 32, 3, SIDE - 2)
    first, second = convolution(8, 3, 64, 5, SIDE - 4), convolution(8, 64, 1, 5, SIDE - 8)
    # Judged: forwards, and gradients of images alone.
    assert found["maker"].flops == maker + features + 2 * (first + second)
    assert found["judge"].flops == 2 * first + 3 * second


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_held_is_what_a_training_holds(optimizer):
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    task, like = Lines(), Lines()
    held = Footprint(planned(task, optimizer=optimizer), "float32").held["lines"]
    whole = Trainer(like, settings, seed=0, device="cpu", degrees=Degrees(1, 1, 16, 16))
    tensors, sizes = whole.tensors(), {}
    for name, tensor in tensors.items():
        sizes[name.split("/")[0]] = sizes.get(name.split("/")[0], 0) + tensor.numel() * tensor.element_size()
    assert (held.weights, held.optimizer) == (sizes["networks"], sizes["optimizer"])
    assert (held.trained, held.kept) == (sizes["average"], sizes["networks"])
    assert held.parameters == sum(tensor.numel() for tensor in network_tensors("lines", like.networks["lines"]).values()) - 5
    assert held.blocks == (2, 6 * 6 + 6)


class Lines(Task):
    def __init__(self):
        network = nn.Module()
        network.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        network.register_buffer("seen", torch.zeros(5))
        self.networks = {"lines": network}

    def batch(self, step, indices_B):
        return {"x": torch.zeros(len(indices_B), 6)}

    def loss(self, name, network, batch):
        return Losses(network.blocks[1](network.blocks[0](batch["x"])).mean())

    def blocks(self, name):
        return list(self.networks[name].blocks)


def test_a_plan_tells_what_was_asked_for():
    found = planned(micro_batch_size=4)
    assert isinstance(found, Planned)
    assert (found.settings.micro_batch_size, found.micro, found.keeps_best) == (4, None, True)
    assert not np.isnan(found.settings.learning_rate)
