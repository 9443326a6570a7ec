"""A task of several networks: each is trained on its own loss, which uses the others, as a loop in plain torch would do it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rarkit.engine.degrees import degrees
from rarkit.engine.mesh import Mesh
from rarkit.engine.settings import TrainSettings
from rarkit.engine.task import Losses, Task
from rarkit.engine.trainer import Trainer
from rarkit.runtime.together import together
from rarkit.training import Learning
from tests.processes import call_ranks

SETTINGS = TrainSettings(
    steps=6, batch_size=4, learning_rate=1e-2, end_learning_rate=1e-3, gradient_clip=0.1, precision="float32", checkpoint_every=2
)


class Adversaries(Task):
    """A generator of numbers, and a critic that tells them from real ones."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.networks = {"generator": nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), "critic": nn.Linear(2, 1)}
        with torch.no_grad():
            for network in self.networks.values():
                for weight in network.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=generator))

    def batch(self, step, indices_B):
        draws = np.stack([np.random.default_rng((step, index)).standard_normal(5) for index in indices_B]).astype(np.float32)
        return {"noise": torch.from_numpy(draws[:, :3]), "real": torch.from_numpy(draws[:, 3:])}

    def loss(self, name, network, batch):
        if name == "generator":
            return Losses(-self.networks["critic"](network(batch["noise"])).mean())
        drawn, real = network(self.networks["generator"](batch["noise"])), network(batch["real"])
        return Losses(
            functional.softplus(drawn).mean() + functional.softplus(-real).mean(), {"gap": (real - drawn).detach().mean()}
        )


def by_hand(micro):
    """The weights and losses of a loop without an engine."""
    task, losses = Adversaries(), []
    optimizers = {}
    for name, network in task.networks.items():
        decayed = [weight for key, weight in network.named_parameters() if key.endswith("weight")]
        others = [weight for key, weight in network.named_parameters() if not key.endswith("weight")]
        groups = [{"params": decayed, "weight_decay": SETTINGS.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizers[name] = torch.optim.AdamW(groups, lr=0.0, betas=SETTINGS.betas)
    for step in range(SETTINGS.steps):
        rate = 1e-3 + 0.5 * (1e-2 - 1e-3) * (1 + np.cos(np.pi * step / SETTINGS.steps))
        for name, network in task.networks.items():
            parts = [task.loss(name, network, task.batch(step, part)).loss for part in np.split(np.arange(4), 4 // micro)]
            loss = sum(parts) / len(parts)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            for weight, gradient in zip(network.parameters(), gradients, strict=True):
                weight.grad = gradient
            nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            for group in optimizers[name].param_groups:
                group["lr"] = rate
            optimizers[name].step()
            losses.append(float(loss.detach()))
    return task.networks, losses


@pytest.mark.parametrize("micro", [4, 2])
def test_each_is_trained_on_its_own_loss(micro):
    settings, task = SETTINGS.model_copy(update={"micro_batch_size": micro}), Adversaries()
    trainer = Trainer(task, settings, seed=0, device="cpu", degrees=degrees(settings, 1))
    records = []
    for _ in range(settings.steps):
        trainer.advance()
        records += [record for record, _ in trainer.records()]
    networks, losses = by_hand(micro)
    measured = [record[f"{name}_loss"] for record in records for name in networks]
    np.testing.assert_allclose(measured, losses, rtol=1e-5)
    assert {"generator_gradient_norm", "critic_gradient_norm", "critic_gap"} <= records[0].keys()
    for name, network in networks.items():
        for key, weight in network.state_dict().items():
            torch.testing.assert_close(task.networks[name].state_dict()[key], weight, rtol=1e-5, atol=1e-6)
        assert all(weight.requires_grad for weight in task.networks[name].parameters())


def test_measures_hold_no_graph(monkeypatch):
    """Otherwise the activations of all passes of a step would be kept, and accumulation save no memory."""

    class Attached(Adversaries):
        def loss(self, name, network, batch):
            loss = super().loss(name, network, batch).loss
            return Losses(loss, {"attached": 2 * loss})

    held, total = [], Mesh.total
    monkeypatch.setattr(Mesh, "total", lambda self, numbers_N: held.append(numbers_N.requires_grad) or total(self, numbers_N))
    trained = Learning().train(Attached(), SETTINGS, seed=0)
    assert held == [False] * SETTINGS.steps
    np.testing.assert_allclose(trained.log["critic_attached"], 2 * trained.log["critic_loss"], rtol=1e-6)


def test_the_engine_gives_the_weights_of_all():
    trained = Learning().train(Adversaries(), SETTINGS, seed=0)
    assert trained.weights.keys() == {"generator", "critic"}
    again = Learning().train(Adversaries(), SETTINGS, seed=0)
    for name, weights in trained.weights.items():
        assert all(torch.equal(weight, again.weights[name][key]) for key, weight in weights.items())


def trains(place):
    """One of several ranks."""
    with together() as ranks:
        trained = Learning(ranks=ranks).train(Adversaries(), SETTINGS, seed=0)
        if ranks.first:
            torch.save(trained.weights, place)


@pytest.mark.parametrize("count", [2])
def test_processes_train_them_as_one(count, tmp_path):
    done = call_ranks(count, tmp_path, trains, tmp_path / "weights.pt")
    assert done.returncode == 0, done.stderr
    networks, _ = by_hand(4)
    for name, weights in torch.load(tmp_path / "weights.pt", weights_only=True).items():
        for key, weight in networks[name].state_dict().items():
            torch.testing.assert_close(weights[key], weight, rtol=1e-5, atol=1e-6)


def keeps_its_buckets():
    """One of several ranks."""
    wrapped, wrap = [], Mesh.wrap
    Mesh.wrap = lambda self, *arguments: wrapped.append(wrap(self, *arguments)) or wrapped[-1]
    with together() as ranks:
        Learning(ranks=ranks).train(Adversaries(), SETTINGS, seed=0)
    rebuilt = [network._get_ddp_logging_data().get("has_rebuilt_buckets", 0) for network in wrapped]
    assert rebuilt == [0, 0]


def test_gradients_are_added_in_the_order_of_the_first_step_and_nothing_is_warned_of(tmp_path):
    done = call_ranks(2, tmp_path, keeps_its_buckets)
    assert done.returncode == 0, done.stderr
    # Of C++ too, which Python's filters do not see.
    assert "find_unused_parameters" not in done.stderr
