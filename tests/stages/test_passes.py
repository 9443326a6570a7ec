"""As many images a pass as the memory of a GPU holds; without a GPU, whose free memory is given here."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch

from rarkit import load_recipe, run
from rarkit.engine.degrees import degrees
from rarkit.engine.settings import TrainSettings
from rarkit.engine.trainer import Trainer
from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.estimate.estimate import estimate
from rarkit.models import PRESETS, RAR, RARConfig
from rarkit.models.rar.family import RARCosts
from rarkit.permutation_schedules.linear import Linear
from rarkit.runtime.ranks import ALONE
from rarkit.stages.passes import Passes
from rarkit.stages.train import training_log
from rarkit.training.memory import training_memory
from rarkit.training.next_token import NextToken
from tests.training.test_training import InMemory

LARGE = RARCosts(PRESETS["rar_l"])
GB = 10**9


def passes(monkeypatch, free=80 * GB, device="cuda", **changes):
    monkeypatch.setattr(Passes, "_free", lambda self: free)
    settings = TrainSettings(**({"steps": 4, "batch_size": 256, "precision": "bfloat16"} | changes))
    return Passes(settings, LARGE, False, device, ALONE)


@pytest.mark.parametrize("checkpointing", [False, 3, True])
def test_a_pass_is_the_largest_that_fits(monkeypatch, checkpointing):
    chosen = passes(monkeypatch, activation_checkpointing=checkpointing)
    most = chosen.most()

    def total(micro):
        divided = degrees(chosen.settings, 1, micro)
        return training_memory(chosen.settings, LARGE, divided, precision="bfloat16", keeps_weights=False).total

    assert 1 < most <= 256
    assert total(most) <= 0.9 * 80 * GB
    assert most == 256 or total(2 * most) > 0.9 * 80 * GB


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"micro_batch_size": 32}])
def test_elsewhere_memory_is_not_asked(monkeypatch, changes):
    monkeypatch.setattr("rarkit.stages.passes.host_memory", lambda: 1000 * GB)
    assert passes(monkeypatch, 0, **changes).most() is None


def test_the_process_with_the_least_memory_decides(monkeypatch):
    class Others:
        first, size = True, 4

        def gathered(self, own):
            return [own, 8, own]

        def told(self, value):
            return value()

    chosen = passes(monkeypatch, batch_size=256)
    assert chosen.most() > 8
    assert dataclasses.replace(chosen, ranks=Others()).most() == 8


def test_a_gpu_that_is_too_small_is_refused_with_numbers_and_the_cure(monkeypatch):
    with pytest.raises(CapabilityError) as refused:
        passes(monkeypatch, 6 * GB).most()
    said = str(refused.value)
    assert "cuda has 6.0 GB free, of which 90% are used, but training needs 8." in said
    for word in (
        "weights 1.8",
        "optimizer 3.7",
        "Set train.activation_checkpointing = true",
        "train.micro_batch_size = 1 tries it",
    ):
        assert word in said, said


def test_on_a_cpu_too_little_memory_is_warned_of(monkeypatch):
    monkeypatch.setattr("rarkit.stages.passes.host_memory", lambda: 40 * GB)
    chosen = passes(monkeypatch, device="cpu", precision="float32")
    said = re.fullmatch(
        r"by estimate, training needs [\d.]+ GB: weights 1\.8, .*\. This machine has 40\.0 GB, so the system may kill it\. "
        r"Set train\.micro_batch_size = (\d+) \(a pass has 256 images\)\.",
        chosen.shortage(),
    )
    fitting = dataclasses.replace(chosen, settings=chosen.settings.model_copy(update={"micro_batch_size": int(said[1])}))
    assert fitting.shortage() is None
    assert passes(monkeypatch, device="cuda").shortage() is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    assert fitting.shortage().startswith("by estimate, each of 2 processes needs")
    monkeypatch.setattr("rarkit.stages.passes.host_memory", lambda: 4 * GB)
    assert "Set train.activation_checkpointing = true" in fitting.shortage()


def test_a_training_that_may_not_fit_warns_and_is_tried(monkeypatch, small_recipe, tmp_path):
    monkeypatch.setattr("rarkit.stages.passes.host_memory", lambda: 10_000)
    assert "so the system may kill it" in estimate(load_recipe(small_recipe)).missing["memory"]
    with pytest.warns(RarkitWarning, match=r"train: by estimate, training needs .* so the system may kill it"):
        run(load_recipe(small_recipe), str(tmp_path / "store"), device="cpu", until="train", runs=tmp_path / "runs", quiet=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("checkpointing", [False, 2, True])
def test_a_gpu_holds_what_the_estimate_says(checkpointing):
    """The peak of two eager steps of a small RAR, of which activations are most."""
    config = RARConfig(
        hidden_size=512, depth=8, num_heads=8, mlp_hidden_size=2048, seq_len=256, codebook_size=1024, num_classes=1000
    )
    chosen = TrainSettings(steps=4, batch_size=32, precision="bfloat16", activation_checkpointing=checkpointing)
    generator = np.random.default_rng(0)
    rows = (InMemory(generator.integers(0, 1000, shape)) for shape in ((64, 256), 64))
    task = NextToken(RAR(config), *rows, chosen, seed=0, scan_order_L=np.arange(256), schedule=Linear())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer = Trainer(task, chosen, seed=0, device="cuda", degrees=degrees(chosen, 1))
    for _ in range(2):
        trainer.advance()
    peak = torch.cuda.max_memory_allocated() - before
    said = training_memory(chosen, RARCosts(config), degrees(chosen, 1), precision="bfloat16", keeps_weights=False).total
    assert peak == pytest.approx(said, rel=0.1)


def test_training_takes_the_passes_that_fit(monkeypatch, small_recipe, small_finished, tmp_path, capsys):
    """With accumulation the curve is that of without."""
    monkeypatch.setattr(Passes, "most", lambda self: 3)
    finished = run(load_recipe(small_recipe), str(tmp_path / "store"), device="cpu", until="train", runs=tmp_path / "runs")
    assert "passes of" in capsys.readouterr().err
    log, whole = (training_log(each.plan["train"].output) for each in (finished, small_finished))
    assert log["loss"] == pytest.approx(whole["loss"], rel=1e-5)
