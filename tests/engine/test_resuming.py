"""A training that is stopped anywhere, in any way, and run again ends with the bits of an undisturbed one."""

from __future__ import annotations

import os
import random
import shutil
import signal
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarkit.cache.store import Store
from rarkit.engine import checkpoint_storage
from rarkit.engine.checkpoint_seal import checkpoint_step
from rarkit.engine.checkpoints import Checkpoints
from rarkit.engine.learning import Learning
from rarkit.engine.settings import TrainSettings
from rarkit.engine.watching import Watcher
from rarkit.errors import RankError, StoreError
from rarkit.models import RAR, RARConfig
from rarkit.permutation_schedules.linear import Linear
from rarkit.runtime.ranks import Ranks
from rarkit.runtime.signals import Stopped
from rarkit.trackers.tracking import Trackers
from rarkit.training.next_token import MODEL, NextToken
from tests.engine.stops import WHOLE, Point, full, install
from tests.training.in_memory import InMemory

STEPS, EVERY = 13, 3
SIZES = {"hidden_size": 16, "depth": 1, "num_heads": 2, "mlp_hidden_size": 32, "seq_len": 6, "codebook_size": 8, "num_classes": 3}
WAYS = {
    "plain": {},
    "accumulated": {"micro_batch_size": 2},
    "average": {"ema_decay": 0.7, "learning_rate_schedule": "wsd", "decay_steps": 5},
    "muon": {"optimizer": "muon"},
    "all": {"micro_batch_size": 2, "ema_decay": 0.7, "optimizer": "muon", "activation_checkpointing": True},
}
"""Settings of trainings; all draw dropout masks."""
HOWS = ("signal", "exception", "full disk", "kill")


class Killed(BaseException):
    """Ends a training in which nothing counts any more but what a copy of the disk has."""


def training(way, seed=3):
    """A small task."""
    generator = np.random.default_rng(0)
    tokens, labels = generator.integers(0, 8, (10, 6)), generator.integers(0, 3, 10)
    settings = TrainSettings(
        steps=STEPS, batch_size=4, learning_rate=0.01, warmup_steps=2, precision="float32", checkpoint_every=EVERY, **WAYS[way]
    )
    model = RAR(RARConfig(**SIZES, dropout=0.2, attention_dropout=0.1), seed=1)
    held = InMemory(tokens), InMemory(labels)
    return NextToken(model, *held, settings, seed=seed, scan_order_L=np.arange(6), schedule=Linear())


def train(folder, way):
    """Trains, from the last checkpoint if there is one.

    Returns weights and state at the end, and the log, as bytes; the log as it was noted; and the step where it went on.
    """
    noted, last, begun = [], {}, []
    task = training(way)

    def look(looking):
        last.update({name: tensor.detach().clone() for name, tensor in looking.trainer.tensors().items()})

    def tracked(step):
        begun.append(step)
        return Trackers()

    output = Store(str(folder)).output("train", "cafe")
    with output.writing({}):
        learning = Learning(output=output, log=noted.append)
        trained = learning.train(task, task.settings, seed=3, watchers=[Watcher(STEPS, look)], tracked=tracked)
    tensors = {**{f"state {name}": tensor for name, tensor in last.items()}, **trained.weights[MODEL]}
    found = {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items() if tensor.ndim}
    return found, {name: values.tobytes() for name, values in trained.log.items()}, noted, begun[0]


@cache
def undisturbed(way, folder):
    return train(folder, way)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return lambda way: undisturbed(way, folder / way)


def stopped(how, point, folder, way, monkeypatch):
    """Trains in ``folder`` until it is stopped; returns where what a restarted machine would find lies."""
    left = Path(f"{folder}-{how.replace(' ', '-')}")
    # What is left in the generator by whatever came before decides nothing.
    torch.manual_seed(point.step)

    def kill():
        shutil.copytree(folder, left)
        # Another process would see that this one is gone.
        (left / "train/cafe/lock.json").unlink()
        raise Killed

    def fail():
        raise ZeroDivisionError

    number = (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM))[point.step % 2]
    ways = {
        "signal": (lambda: os.kill(os.getpid(), number), Stopped),
        "exception": (fail, ZeroDivisionError),
        "full disk": (full, StoreError),
        "kill": (kill, Killed),
    }
    stop, raised = ways[how]
    with monkeypatch.context() as patch:
        install(point, stop, patch.setattr)
        with pytest.raises(raised):
            train(folder, way)
    return left if how == "kill" else folder


def left_at(how, point, before):
    """The step of the checkpoint that is left, by a training that went on at ``before``."""
    in_saving = point.place is not None
    reached = -(-point.step // EVERY) * EVERY if in_saving else point.step
    if how == "signal":
        # It is looked at in the next step, at whose end the checkpoint is written.
        return reached + (1 if in_saving else 2)
    return max(before, (reached - in_saving) // EVERY * EVERY)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("way", WAYS)
def test_stopped_at_a_random_point_it_ends_with_the_same_bits(way, how, expected, tmp_path, monkeypatch):
    """Twice: the second time in a way that is drawn."""
    draws = random.Random(f"{way} {how}")
    folder, before = tmp_path / "store", 0
    for again in (how, draws.choice(HOWS)):
        in_saving = again == "full disk" or (again != "exception" and draws.random() < 0.5)
        if before + in_saving > STEPS - 1 - EVERY:
            break
        # The last step has no checkpoint.
        step = draws.randint(before + in_saving, STEPS - 1 - EVERY)
        point = Point(step, draws.choice([draws.randrange(60), WHOLE]) if in_saving else None)
        folder = stopped(again, point, folder, way, monkeypatch)
        before = left_at(again, point, before)
        assert (checkpoint_step(Store(str(folder)).output("train", "cafe")) or 0) == before
    *found, begun = train(folder, way)
    assert begun == before
    for kind, one, other in zip(("bits", "log", "records"), expected(way), found, strict=False):
        assert one == other, kind


def test_accumulated_passes_have_the_loss_of_one(expected):
    """Masks too are those of the samples."""
    plain, accumulated = ([record["loss"] for record in expected(way)[2]] for way in ("plain", "accumulated"))
    np.testing.assert_allclose(accumulated, plain, rtol=1e-5)


@pytest.mark.parametrize("step", [4, 5, 11])
def test_each_step_is_saved_once_and_the_last_not_at_all(step, tmp_path, monkeypatch):
    """A signal that is looked at where a checkpoint is due, where none is, and in the last step."""
    saved, plain = [], Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *rest: (saved.append(step), plain(self, step, *rest)))
    install(Point(step), lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch.setattr)
    with pytest.raises(Stopped):
        train(tmp_path, "plain")
    last = {} if step + 2 == STEPS else {step + 2}
    assert saved == sorted({*range(EVERY, step + 2, EVERY), *last})


def test_a_checkpoint_that_fails_while_training_goes_on_ends_it_at_the_next_step(expected, tmp_path, monkeypatch):
    noted, plain, begin = [], Checkpoints.save, Checkpoints.__init__

    def save(self, step, *rest):
        noted.append(step)
        plain(self, step, *rest)
        self._pending.exception()

    def fail(tensor):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "__init__", lambda self, *given, **options: begin(self, *given, **options, asynchronous=True))
        patch.setattr(Checkpoints, "save", save)
        patch.setattr(checkpoint_storage, "content", fail)
        with pytest.raises(StoreError, match="the disk is full"):
            train(tmp_path, "plain")
    assert noted == [EVERY, EVERY + 1]
    assert train(tmp_path, "plain")[0] == expected("plain")[0]


def test_without_torchrun_it_stops_with_a_checkpoint(expected, tmp_path, monkeypatch):
    gone = []

    def check(self, *, now=False):
        if gone:
            raise RankError("lost the connection to torchrun.", told=False)

    with monkeypatch.context() as patch:
        patch.setattr(Ranks, "check", check)
        install(Point(4), lambda: gone.append(True), patch.setattr)
        with pytest.raises(
            RankError, match=r"^lost the connection to torchrun\. Training stands at step 6 of 13, in a checkpoint: "
        ):
            train(tmp_path, "plain")
    assert train(tmp_path, "plain")[0] == expected("plain")[0]


@given(st.integers(0, 2**63), st.integers(0, STEPS - 1), st.lists(st.integers(0, 3), min_size=1))
def test_a_sample_is_the_same_in_any_part_of_its_batch(seed, step, indices):
    """Whichever process, and pass, it falls to."""
    task = training("plain", seed)
    whole, part = task.batch(step, np.arange(4)), task.batch(step, np.array(indices))
    assert whole.keys() == part.keys()
    assert all(torch.equal(part[name], whole[name][indices]) for name in whole)
