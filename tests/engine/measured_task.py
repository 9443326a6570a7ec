"""A task that measures itself on held-out samples, and moves a buffer once a step; and trainings of it for ``tests.processes``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from rarkit.runtime.together import together
from rarkit.training import Learning, Losses, Task, TrainSettings

HELD_OUT = 5
SETTINGS = TrainSettings(
    steps=9,
    batch_size=4,
    learning_rate=0.5,
    learning_rate_schedule="constant",
    weight_decay=0,
    gradient_clip=None,
    precision="float32",
    checkpoint_every=2,
)
"""Of steps so long that they overshoot."""


class Net(nn.Module):
    """A line, the mean of what it saw, and a block for sharding."""

    def __init__(self):
        super().__init__()
        self.block = nn.Linear(3, 3)
        self.line = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))

    def forward(self, inputs):
        return self.line(self.block(inputs))[:, 0]


class Measured(Task):
    """Learns sums of three numbers."""

    held_out_samples = HELD_OUT

    def __init__(self):
        self.networks = {"net": Net()}
        self.seen, self.drawn, self.calls = [], [], 0

    def batch(self, step, indices_B):
        return rows((1, step, index) for index in indices_B)

    def loss(self, name, network, batch):
        self.seen.append(batch["inputs"])
        return Losses((network(batch["inputs"]) - batch["targets"]).square().mean())

    def blocks(self, name):
        return [self.networks["net"].block]

    def held_out_batch(self, indices_B):
        return rows((2, index) for index in indices_B)

    def errors(self, networks, batch):
        assert not networks["net"].training
        miss = networks["net"](batch["inputs"]) - batch["targets"]
        return {"miss": miss.abs(), "error": miss.square()}

    def stepped(self, step, total):
        self.calls += 1
        seen = torch.cat(self.seen)
        self.seen = []
        sums = total(torch.cat([seen.sum(0), torch.tensor([float(len(seen))])]))
        self.networks["net"].mean.lerp_(sums[:-1] / sums[-1], 0.5)
        self.drawn.append(torch.rand(()))
        return {"samples": sums[-1], "draw": self.drawn[-1]}


def rows(seeds):
    inputs = torch.from_numpy(np.stack([np.random.default_rng(seed).standard_normal(3) for seed in seeds]).astype(np.float32))
    return {"inputs": inputs, "targets": inputs.sum(1)}


class Apart(Measured):
    """Moves the buffer by what this process alone saw."""

    def stepped(self, step, total):
        self.networks["net"].mean += self.seen.pop().sum(0)
        return {}


class Pictured(Measured):
    """Its pictures are the bytes of its outputs, and some that never change."""

    def previews(self, networks):
        outputs = networks["net"](rows((3, index) for index in range(4))["inputs"])
        return {"grey": np.zeros((1, 4, 4, 1), np.uint8), "outputs": outputs.numpy().view(np.uint8).reshape(1, 4, 4, 1)}


def showing():
    """An engine that keeps what is shown: by step and caption."""
    shown = {}

    def show(step, every, images, captions):
        shown[step] = dict(zip(captions, images[:, None], strict=True))

    return Learning(show=show), shown


def trains_shown(place):
    with together() as ranks:
        learning, shown = showing()
        settings = SETTINGS.model_copy(update={"data_parallel": "fsdp", "reshard_after_forward": False})
        replace(learning, ranks=ranks).train(Pictured(), settings, seed=0, best_every=1, preview_every=9)
        if ranks.first:
            torch.save({name: row.tolist() for name, row in shown[settings.steps].items()}, place)


def trains(place, changes):
    """One of several ranks."""
    with together() as ranks:
        task = Measured()
        trained = Learning(ranks=ranks).train(task, SETTINGS.model_copy(update=changes), seed=0, best_every=2)
        if ranks.first:
            torch.save([trained.weights["net"], *(dict(found.items()) for found in as_lists(trained))], place)


def as_lists(trained):
    return [{name: values.tolist() for name, values in found.items()} for found in (trained.log, trained.measured)]


def trains_apart():
    with together() as ranks:
        Learning(ranks=ranks).train(Apart(), SETTINGS, seed=0)


def trains_often():
    with together() as ranks:
        for _ in range(30):
            Learning(ranks=ranks).train(Measured(), SETTINGS.model_copy(update={"steps": 1}), seed=0, on_all=False)
