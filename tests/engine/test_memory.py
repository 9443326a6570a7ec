"""What is said where the memory does not suffice: the estimate of a process, and the settings that take less."""

from __future__ import annotations

import numpy as np
import pytest

from rarkit.engine.degrees import degrees
from rarkit.engine.learning import Learning
from rarkit.engine.memory import advice, saying_what_to_lower
from rarkit.engine.settings import TrainSettings
from rarkit.errors import CapabilityError
from rarkit.models import PRESETS, RAR
from rarkit.models.rar.family import RARCosts
from rarkit.permutation_schedules.linear import Linear
from rarkit.training.next_token import NextToken
from tests.engine.measured_task import SETTINGS as MEASURED
from tests.engine.measured_task import Measured
from tests.training.test_training import SMALL, InMemory

FSDP = {"data_parallel": "fsdp"}


@pytest.mark.parametrize(
    ("processes", "changes", "said", "unsaid"),
    [
        (1, {}, ["activation_checkpointing", "in several processes (torchrun)"], ["replicate"]),
        (2, {"activation_checkpointing": True}, ['data_parallel = "fsdp"'], ["activation_checkpointing", "torchrun"]),
        (2, {"activation_checkpointing": 3}, ["activation_checkpointing = true"], []),
        (4, {**FSDP, "replicate": 2}, ["lower train.replicate"], ["fsdp"]),
        (4, {**FSDP, "reshard_after_forward": False}, ["reshard_after_forward = true"], ["replicate"]),
        (4, {**FSDP, "micro_batch_size": 1}, ["more processes"], ["reshard"]),
    ],
)
def test_advice_names_what_is_not_done_yet(processes, changes, said, unsaid):
    settings = TrainSettings(steps=4, batch_size=64, **changes)
    words = advice(settings, degrees(settings, processes))
    assert all(word in words for word in [*said, "choose a smaller model"]), words
    assert not any(word in words for word in unsaid), words


def test_of_shared_weights_the_estimate_is_that_of_a_process():
    """Of RAR-L, whose weights take 1.8 GB: a fourth of them, and those that are gathered."""
    chosen, rows = TrainSettings(steps=4, batch_size=64, **FSDP), InMemory(np.zeros((4, 6), np.int64))
    costs = RARCosts(PRESETS["rar_l"])
    task = NextToken(RAR(SMALL), rows, rows, chosen, seed=0, scan_order_L=np.arange(6), schedule=Linear(), costs=costs)
    divided = degrees(chosen, 4)
    with pytest.raises(CapabilityError) as refused, saying_what_to_lower(task, chosen, divided, "bfloat16", "cpu"):
        raise MemoryError
    said = str(refused.value)
    assert "weights 0.5, gradients 0.5, optimizer 0.9, gathered " in said
    assert ", with 16 images per pass. Set train.micro_batch_size = 8 (it is 16), or set train.activation" in said


def test_of_a_part_its_own_settings_are_to_be_lowered(monkeypatch):
    def full(self, name, network, batch):
        raise MemoryError

    monkeypatch.setattr(Measured, "loss", full)
    with pytest.raises(CapabilityError, match=r"for this training\. Choose a smaller batch or network in \[tokenizer\]\.$"):
        Learning(part="tokenizer").train(Measured(), MEASURED, seed=0)
