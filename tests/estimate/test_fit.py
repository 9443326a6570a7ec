"""What ``rarkit plan`` says of a tokenizer that learns by gradient descent."""

from __future__ import annotations

import json
from typing import Any, Literal, final

import numpy as np
import pytest
import torch
from torch import nn

import rarkit
from rarkit import register
from rarkit.cli.estimate import estimate_as_json, print_estimate
from rarkit.engine.degrees import Degrees
from rarkit.engine.trainer import Trainer
from rarkit.estimate.estimate import estimate
from rarkit.registry import registered
from rarkit.runtime.console import PrintableConsole
from rarkit.runtime.machine import GPUS
from rarkit.training import Losses, Task, TrainSettings
from rarkit.training.memory import USABLE
from tests.models.measured import peak

SIDE = 16


@final
class Shifted(rarkit.Tokenizer):
    """A token for each pixel; what it learns is a network that nobody needs."""

    name: Literal["shifted"] = "shifted"
    width: int = 16
    batch_size: int = 32
    micro_batch_size: int | None = None
    fault: Literal["none", "reads", "fails", "learns nothing"] = "none"
    learns = True

    def codebook_size(self) -> int:
        return 256

    def grid(self, info: rarkit.ImageInfo) -> tuple[int, int]:
        return info.height, info.width

    def learn(self, reader: Any, seed: int, learning: Any) -> dict[str, Any]:
        images_NHWC = reader.read().images_NHWC
        if self.fault == "fails":
            raise ZeroDivisionError("as parts do")
        if self.fault != "learns nothing":
            settings = TrainSettings(steps=4, batch_size=self.batch_size, ema_decay=0.9, precision="float32")
            task = Mapped(self, images_NHWC)
            learning.train(task, settings, seed=seed, micro=self.micro_batch_size, best_every=2)
        return {"nothing": np.zeros(1)}

    def build(self, state: Any, device: str) -> Any:
        raise NotImplementedError


@final
class Mapped(Task):
    """Has no convolutions: what their kernels allocate besides differs between processors."""

    held_out_samples = 2

    def __init__(self, part: Shifted, images_NHWC: Any) -> None:
        self.part, self.images_NHWC = part, images_NHWC
        width = part.width
        layers = nn.Linear(1, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, 1)
        self.networks = {"net": nn.Sequential(*layers)}

    def batch(self, step: int, indices_B: Any) -> Any:
        return {"images": torch.from_numpy(self.images_NHWC[indices_B % len(self.images_NHWC)])}

    def loss(self, name: str, network: nn.Module, batch: Any) -> Losses:
        images_BHWC = batch["images"].float() / 255
        error = (network(images_BHWC) - images_BHWC).square().mean()
        return Losses(error * 2 if self.part.fault == "reads" and error > 1 else error)


@pytest.fixture(autouse=True)
def registered_here(monkeypatch):
    monkeypatch.setattr(registered, "_registered", {})


def recipe(**settings):
    register(Shifted, replace=True)
    return rarkit.make_recipe(
        dataset={"name": "generated", "height": SIDE, "width": SIDE, "channels": 1},
        tokenizer={"name": "shifted", **settings},
        model={"hidden_size": 8, "depth": 1, "num_heads": 2},
        train={"steps": 1, "batch_size": 2},
    )


def found(tmp_path, processes=1, **settings):
    return estimate(rarkit.plan(recipe(**settings), store=str(tmp_path)), processes=processes)


def lines(needs, capsys):
    print_estimate(needs, PrintableConsole())
    return " ".join(capsys.readouterr().out.split())


def test_the_estimate_is_what_the_training_holds(tmp_path):
    """Persistent bytes exactly; activations by PyTorch's account of what is allocated."""
    fit = found(tmp_path).fit
    part = Shifted()
    reader = recipe().dataset.open("train")
    task = Mapped(part, reader.read().images_NHWC)
    settings = TrainSettings(steps=4, batch_size=32, ema_decay=0.9, precision="float32")
    trainer = Trainer(task, settings, seed=0, device="cpu", degrees=Degrees(1, 1, 32, 32))
    tensors = trainer.tensors()
    sizes = {
        kind: sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith(f"{kind}/"))
        for kind in ("networks", "optimizer", "average")
    }
    memory = fit.training.memory
    assert (memory.weights, memory.optimizer, memory.average) == tuple(sizes.values())
    assert memory.best == memory.gradients == memory.weights
    assert fit.parameters == {"net": memory.weights // 4}
    assert (fit.steps, fit.images, fit.training.micro_batch) == (4, 32, 32)
    for weight in trainer.networks["net"].parameters():
        weight.grad = torch.zeros_like(weight)
    assert memory.activations == pytest.approx(peak(lambda: trainer.gradients("net", 3)), rel=0.02)
    pixels = 32 * SIDE**2
    # Of the first layer, gradients of its weights alone.
    assert fit.training.step_flops == 2 * pixels * 16 * (2 + 3)
    assert fit.flops == 4 * fit.training.step_flops


def test_passes_and_processes_are_those_of_the_training(tmp_path):
    whole, parts, two = (found(tmp_path, **settings).fit.training for settings in ({}, {"micro_batch_size": 8}, {"processes": 2}))
    assert (parts.micro_batch, parts.accumulation, parts.step_flops) == (8, 4, whole.step_flops)
    assert parts.memory.activations == pytest.approx(whole.memory.activations / 4, rel=0.01)
    assert (two.share, two.micro_batch, two.step_flops) == (16, 16, whole.step_flops)
    assert two.step_seconds == whole.step_seconds / 2
    one = found(tmp_path, batch_size=1).fit.training
    assert whole.memory.activations / 32 < one.memory.activations < whole.memory.activations / 16
    alone = found(tmp_path, batch_size=3, processes=2).fit
    assert alone.training is None
    assert "cannot be shared evenly by 2 processes" in alone.unknown


def test_what_does_not_fit_is_said_as_of_the_model(tmp_path, monkeypatch, capsys):
    memory = found(tmp_path).fit.training.memory
    room = GPUS["h100"].__class__(**{**GPUS["h100"].__dict__, "memory": int((memory.persistent + memory.activations / 3) / USABLE)})
    monkeypatch.setitem(GPUS, "h100", room)
    needs = found(tmp_path)
    assert not needs.fit.training.fits
    assert needs.fit.training.largest_micro_batch == 8
    assert "set tokenizer.micro_batch_size = 8" in lines(needs, capsys)
    small = GPUS["h100"].__class__(**{**GPUS["h100"].__dict__, "memory": memory.persistent})
    monkeypatch.setitem(GPUS, "h100", small)
    assert "choose a smaller batch or network in [tokenizer]" in lines(found(tmp_path), capsys)


@pytest.mark.parametrize(
    ("fault", "known", "said"),
    [
        ("reads", True, "what its passes take is unknown: the loss of network 'net' of Mapped reads values (aten._local"),
        ("fails", False, "what tokenizer 'shifted' needs to learn is unknown: ZeroDivisionError: as parts do"),
        ("learns nothing", False, "learns without learning.train"),
    ],
)
def test_what_is_unknown_is_said(fault, known, said, tmp_path, capsys):
    needs = found(tmp_path, fault=fault)
    assert needs.fit.training is None
    assert needs.train is not None
    assert bool(needs.fit.parameters) == (needs.fit.held is not None) == known
    text = lines(needs, capsys)
    assert said in text
    assert ("and activations: weights" in text) == known


def test_the_numbers_are_json(tmp_path):
    needs = found(tmp_path)
    data = json.loads(json.dumps(estimate_as_json(needs)))["fit"]
    assert data["training"]["memory"]["total"] == needs.fit.training.memory.total
    assert data["training"]["flops"] == needs.fit.flops
    assert data["steps"] == 4
    assert needs.here.fit_seconds > 0


def test_without_such_a_tokenizer_nothing_is_said(tmp_path, digits_recipe):
    assert estimate(rarkit.plan(digits_recipe, store=str(tmp_path))).fit is None
