"""What a training takes, found without it: held against what PyTorch allocates and keeps.

Shape letters: B samples, N rows, C channels.
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

PIXELS, WIDTHS, BEGINS = 32 * 32, (3, 24, 32, 24, 3), 3
"""Rows of a sample; widths of the first network; the step from which the second one counts."""
SETTINGS = TrainSettings(steps=5, batch_size=16, ema_decay=0.9, precision="float32")


class Maker(nn.Module):
    """Products with norms, a buffer, a frozen weight, one that has two names, and a flag that its pass reads.

    No convolutions: what their kernels allocate besides differs between processors.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(*sizes) for sizes in pairwise(WIDTHS[:-1])])
        self.norms = nn.ModuleList([nn.LayerNorm(24), nn.BatchNorm1d(32), nn.LayerNorm(24)])
        self.out = nn.Linear(*WIDTHS[-2:])
        self.same, self.frozen = self.out, nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("begun", torch.tensor(True))

    def forward(self, x_NC):
        if not self.begun:
            raise AssertionError("the flag has lost its value")
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x_NC = nn.functional.silu(norm(layer(x_NC)))
        return self.frozen * self.out(x_NC)


class Made(Task):
    """A network, another one that judges what it makes and begins late, and weights that belong to neither."""

    def __init__(self):
        self.networks = {"maker": Maker(), "judge": nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, 1))}
        self.fixed = torch.randn(3, 32)

    def batch(self, step, indices_B):
        self.judges = step >= BEGINS
        return {"pixels": torch.randn(len(indices_B) * PIXELS, 3)}

    def loss(self, name, network, batch):
        if name == "judge":
            return Losses(network(batch["pixels"]).square().mean())
        made = network(batch["pixels"])
        one, other = (pixels @ self.fixed for pixels in (made, batch["pixels"]))
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


@pytest.mark.parametrize(("precision", "steps", "workspace"), [("float32", 3, 0.01), ("bfloat16", 3, 0.25), ("float32", 5, 0.01)])
def test_passes_take_what_pytorch_allocates(precision, steps, workspace):
    """By its own account, in which the CPU's kernels for bfloat16 have a workspace."""
    footprint = Footprint(planned(steps=steps), precision)
    for samples in (4, 16):
        found, real = footprint.passes(samples), really(precision, samples, steps - 1)
        # What belongs to no network is there anyway.
        outside = 3 * 32 * 4
        assert (1 - workspace) * real["maker"] <= found["maker"].peak - outside <= 1.01 * real["maker"]
        if precision == "float32":
            assert found["judge"].peak == pytest.approx(real["judge"], rel=0.01)


def test_what_begins_late_counts():
    """In the first step there is no judge."""
    real = {step: really("float32", 16, step)["maker"] for step in (0, SETTINGS.steps - 1)}
    found = Footprint(planned(), "float32").passes(16)["maker"].peak
    assert 1.2 * real[0] < found < 1.1 * real[4]


def test_flops_are_those_of_the_products():
    found, rows = Footprint(planned(), "float32").passes(8), 8 * PIXELS
    forward = [2 * rows * inputs * outputs for inputs, outputs in pairwise(WIDTHS)]
    # The first layer's inputs, the pixels, need no gradient.
    maker = 3 * sum(forward) - forward[0]
    features = 3 * 2 * rows * 3 * 32
    first, second = 2 * rows * 3 * 64, 2 * rows * 64
    # Judged: forwards, and gradients of pixels alone.
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
