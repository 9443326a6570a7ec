"""Estimates of what a run needs, and what is missing, which is no error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rarkit import load_recipe, parts, plan, run
from rarkit.cli import options
from rarkit.cli.estimate import estimate_as_json
from rarkit.datasets.digits import Digits
from rarkit.engine.average import Average
from rarkit.engine.degrees import degrees
from rarkit.engine.optimizer import make_optimizers
from rarkit.engine.trainer import Trainer
from rarkit.errors import CapabilityError, DatasetError, WeightsError
from rarkit.estimate.estimate import _batches, estimate
from rarkit.estimate.this_machine import CORE_RATE, LONGEST_STEP
from rarkit.models.rar.sampling_costs import sampling_bytes
from rarkit.pipeline.preflight import part_obstacles
from rarkit.runtime.machine import GPUS
from rarkit.runtime.signals import LAUNCHED
from rarkit.sampling import Constant, Interval, Linear, PowerCosine
from rarkit.sampling.decoder import guided_steps
from rarkit.stages.sample import sample_rows, stretches

ROOT = Path(__file__).parents[2]
RELEASED = str(ROOT / "recipes/rar_b_released.toml")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr("rarkit.runtime.machine.has_cuda", lambda: False)


def test_disk_is_what_the_store_holds(finished):
    disk = estimate(finished.plan).disk
    tokenize, sample, train = (finished.plan[name].output for name in ("tokenize", "sample", "train"))
    for output, name in ((tokenize, "tokens"), (sample, "samples")):
        arrays = [output.layout(array) for array in output.record().arrays]
        rows = sum(np.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)
        assert disk[name] == rows
    # Besides the weights, the file has their names and shapes.
    assert 0 < train.record().files["model.safetensors"] - disk["model"] < 20_000


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.999])
def test_digits_are_counted_without_opening_them(fraction):
    dataset = Digits(test_fraction=fraction)
    assert [dataset.count(split) for split in ("train", "test")] == [len(dataset.open(split)) for split in ("train", "test")]


@pytest.mark.parametrize(
    "guidance", [Constant(), Constant(scale=2), Linear(scale=1, start=3), PowerCosine(scale=4, power=2), Interval(scale=2, end=0.3)]
)
def test_guided_steps_are_those_of_the_decoder(guidance):
    assert guidance.guided_steps(16) == guided_steps([guidance.scale_at(step, 16) for step in range(16)])


@given(
    classes=st.integers(1, 40), per_class=st.integers(1, 40), batch_size=st.integers(1, 100), row=st.sampled_from([1, 10**5, 2**28])
)
def test_batches_are_counted_as_the_sample_stage_makes_them(classes, per_class, batch_size, row):
    labels_M = np.repeat(np.arange(classes), per_class)
    cuts = [
        cut
        for stretch in stretches(len(labels_M), sample_rows(len(labels_M), row, batch_size), batch_size)
        for cut in stretch.batches(batch_size)
    ]
    made = Counter((stop - start, len(np.unique(labels_M[start:stop]))) for start, stop in cuts)
    assert _batches(len(labels_M), per_class, row, batch_size) == made


def test_the_largest_micro_batch_is_the_largest_that_fits(digits_recipe):
    big = ["model.hidden_size=2048", "model.depth=48", "train.batch_size=6000"]
    train = estimate(plan(load_recipe(digits_recipe, big), "memory://needs")).train
    largest = train.largest_micro_batch
    fits = [size for size in range(1, 6001) if 6000 % size == 0 and _fits(digits_recipe, big, size)]
    assert fits
    assert largest == max(fits) < 6000
    assert (train.fits, train.micro_batch, train.accumulation) == (True, largest, 6000 // largest)


def test_a_model_that_is_too_large_is_helped_by_shards(digits_recipe):
    vast = ["model.hidden_size=8192", "model.depth=48", "train.batch_size=64"]

    def train(*more, **options):
        return estimate(plan(load_recipe(digits_recipe, [*vast, *more]), "memory://needs"), **options).train

    alone = train()
    assert (alone.fits, alone.largest_micro_batch, alone.micro_batch) == (False, None, 1)
    assert 'train.data_parallel = "fsdp", in several processes' in alone.lower
    shared = train("train.data_parallel=fsdp", processes=32)
    assert shared.fits
    assert shared.memory.weights == alone.memory.weights // 32


@pytest.mark.parametrize(
    ("processes", "changes"),
    [
        (1, []),
        (4, []),
        (4, ["train.micro_batch_size=4"]),
        (8, ["train.data_parallel=fsdp"]),
        (8, ["train.data_parallel=fsdp", "train.shard=2", "train.micro_batch_size=2"]),
    ],
)
def test_processes_share_what_the_engine_gives_them(digits_recipe, processes, changes):
    recipe = load_recipe(digits_recipe, changes)
    train = estimate(plan(recipe, "memory://needs"), processes=processes).train
    divided = degrees(recipe.train, processes)
    assert (train.processes, train.shard, train.share) == (divided.size, divided.shard, divided.share)
    assert (train.micro_batch, train.accumulation) == (divided.micro, divided.accumulation)
    assert train.gpu_hours * 3600 == pytest.approx(processes * train.steps * train.step_seconds)
    of_pass = plan(recipe, "memory://needs").experiment.costs.step_flops(divided.micro, checkpointing=0)
    assert train.flops == train.steps * processes * divided.accumulation * of_pass


def test_torchrun_tells_how_many_processes_there_are(digits_recipe, monkeypatch):
    planned = plan(load_recipe(digits_recipe), "memory://needs")
    for name in LAUNCHED:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert estimate(planned).train.processes == 4
    assert estimate(planned, processes=2).train.processes == 2
    monkeypatch.setenv("WORLD_SIZE", "7")
    assert "cannot be shared evenly by 7 processes" in estimate(planned).missing["train"]


def test_there_must_be_a_gpu_for_each_process(digits_recipe, monkeypatch):
    monkeypatch.setattr("rarkit.estimate.estimate.no_gpu", lambda: None)
    monkeypatch.setattr("rarkit.estimate.estimate.gpu_count", lambda: 2)
    planned = plan(load_recipe(digits_recipe), "memory://needs")
    assert "GPU" not in estimate(planned, processes=2).missing
    assert "4 processes need a GPU each, and this machine has 2" in estimate(planned, processes=4).missing["GPU"]


def test_each_attention_backend_is_said_to_work_here_or_why_not(digits_recipe):
    usable = estimate(plan(load_recipe(digits_recipe, ["model.attention_dropout=0"]), "memory://needs")).attention
    assert set(usable) == set(parts().attention_backends)
    assert (usable["sdpa"], usable["plain"]) == (None, None)
    assert "no backward pass on cpu" in usable["flex"]
    dropped = estimate(plan(load_recipe(digits_recipe), "memory://needs")).attention
    assert "'flex' cannot drop attention weights" in dropped["flex"]


def _fits(recipe, overrides, micro_batch):
    planned = plan(load_recipe(recipe, [*overrides, f"train.micro_batch_size={micro_batch}"]), "memory://needs")
    return estimate(planned).train.fits


def test_accumulating_and_checkpointing_take_less_memory(digits_recipe):
    def memory(*overrides):
        return estimate(plan(load_recipe(digits_recipe, overrides), "memory://needs")).train.memory

    whole, part, recomputed = memory(), memory("train.micro_batch_size=16"), memory("train.activation_checkpointing=true")
    every_second = memory("train.activation_checkpointing=2")
    assert part.activations * 4 == whole.activations
    assert part.persistent == recomputed.persistent == every_second.persistent == whole.persistent
    assert recomputed.activations < every_second.activations < whole.activations
    assert recomputed == memory("train.activation_checkpointing=1")


def test_missing_weights_are_named_and_a_run_refuses(tmp_path):
    recipe = load_recipe(RELEASED, [f"tokenizer.weights={tmp_path}/vqgan.bin"])
    planned = plan(recipe, str(tmp_path / "store"))
    assert [(stage.name, stage.action, stage.fingerprint) for stage in planned.stages] == [
        (name, "blocked", None) for name in ("sample", "reference", "evaluate")
    ]
    missing = estimate(planned).missing
    assert missing["tokenizer"].startswith(f"there is no file {tmp_path}/vqgan.bin.")
    assert "Published: hf://yucornetto/RAR/rar_b.bin" in missing["model"]
    with pytest.raises(WeightsError, match=r"there is no file .*weights/\w+\.bin"):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert list(tmp_path.iterdir()) == []


def measures(folder):
    """Overrides that make a recipe measure with files that exist."""
    (folder / "inception.pth").write_bytes(b"weights")
    np.savez(folder / "reference.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    return [f"evaluate.features.weights={folder}/inception.pth", f"evaluate.features.reference={folder}/reference.npz"]


def test_released_weights_are_sampled_without_the_data(tmp_path):
    for name in ("rar.bin", "vqgan.bin"):
        (tmp_path / name).write_bytes(b"weights")
    chosen = [f"model.weights={tmp_path}/rar.bin", f"tokenizer.weights={tmp_path}/vqgan.bin", *measures(tmp_path)]
    planned = plan(load_recipe(RELEASED, chosen), str(tmp_path / "store"))
    assert planned["sample"].action == "run"
    missing = estimate(planned).missing
    assert set(missing) == {"GPU", "model", "tokenizer", "evaluate.features"}
    assert missing["model"].startswith(f"{tmp_path}/rar.bin is text that begins with 'weights', not a PyTorch file.")


def test_data_that_tells_the_shape_of_all_may_be_missing_too(digits_recipe, tmp_path):
    recipe = load_recipe(digits_recipe, ["dataset.name=npz", f"dataset.path={tmp_path}/nowhere.npz"])
    planned = plan(recipe, str(tmp_path / "store"))
    assert {stage.action for stage in planned.stages} == {"blocked"}
    unknown = estimate(planned)
    assert (unknown.model, unknown.train, unknown.sample) == (None, None, None)
    assert "nowhere.npz" in unknown.missing["dataset"]
    with pytest.raises(DatasetError, match=r"nowhere\.npz"):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)


def test_once_the_data_is_there_it_plans(tmp_path):
    overrides = [f"dataset.path={tmp_path}/photographs", "dataset.class_list=imagenet", f"tokenizer.weights={tmp_path}/vqgan.bin"]
    overrides += measures(tmp_path)
    (tmp_path / "vqgan.bin").write_bytes(b"weights")
    recipe = load_recipe(str(ROOT / "recipes/rar_b.toml"), overrides)
    assert set(estimate(plan(recipe, str(tmp_path / "store"))).missing) == {"dataset", "tokenizer", "evaluate.features", "GPU"}
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    for split in ("train", "val"):
        for label in range(1000):
            (tmp_path / f"photographs/{split}/n{label:04}").mkdir(parents=True)
            shutil.copy(tmp_path / "a.png", tmp_path / f"photographs/{split}/n{label:04}")
    planned = plan(load_recipe(str(ROOT / "recipes/rar_b.toml"), overrides), str(tmp_path / "store"))
    assert {stage.action for stage in planned.stages} == {"run"}
    needs = estimate(planned)
    assert set(needs.missing) == {"tokenizer", "evaluate.features", "GPU"}
    assert needs.images == {"train": 10_000, "test": 1000}


def test_parts_that_cannot_be_used_here_are_missing(digits_recipe):
    recipe = load_recipe(digits_recipe, ["attention.name=flex"])
    assert "cannot drop attention weights" in estimate(plan(recipe, "memory://needs")).missing["attention"]
    recipe = load_recipe(digits_recipe, ["attention.name=flex", "model.attention_dropout=0"])
    assert "no backward pass on cpu" in estimate(plan(recipe, "memory://needs")).missing["attention"]


def test_int8_is_for_processors_and_the_plan_says_so(digits_recipe):
    recipe = load_recipe(digits_recipe, ["sample.precision=int8"])
    assert part_obstacles(recipe, "cpu") == {}
    assert "'int8' is for CPUs only: set it to 'bfloat16'" in part_obstacles(recipe, "cuda")["sample"]


def test_what_the_cache_takes_depends_on_its_type():
    def cache(**chosen):
        overrides = [f"sample.{key}={value}" for key, value in chosen.items()]
        return estimate(plan(load_recipe(str(ROOT / "recipes/rar_xl.toml"), overrides), "memory://needs")).sample.memory.kv_cache

    assert cache(precision="float32") == 2 * cache() == 4 * cache(kv_cache="float8")


@pytest.mark.parametrize(("has", "bfloat16"), [("avx2", "widens_bfloat16"), ("avx512f", "sums_apart"), ("avx512f avx512_bf16", "")])
def test_a_cpu_holds_the_projections_twice(monkeypatch, has, bfloat16):
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", lambda: frozenset({"sse2", *has.split()}))
    needs = estimate(plan(load_recipe(str(ROOT / "recipes/rar_xl.toml")), "memory://needs"))
    sample = needs.sample
    asked = {"on_cpu": True, "compiled": True} | ({bfloat16: True} if bfloat16 else {})
    expected = sampling_bytes(needs.model, batch=256, guided=True, dtype="bfloat16", **asked)
    assert sample.cpu_memory == expected
    assert sample.memory.laid_out == 0 < expected.laid_out < expected.weights == sample.memory.weights
    assert estimate_as_json(needs)["sample"]["cpu_memory"]["total"] == expected.total


def test_imported_tokens_may_be_missing(digits_recipe, tmp_path):
    recipe = load_recipe(digits_recipe, [f"train.tokens={tmp_path}/nowhere"])
    planned = plan(recipe, str(tmp_path / "store"))
    assert planned["train"].action == planned["sample"].action == "blocked"
    assert planned["tokenize"].action == "run"
    assert "rarkit tokens import" in estimate(planned).missing["train.tokens"]


def test_a_better_gpu_takes_less_time_and_holds_more():
    planned = plan(load_recipe(str(ROOT / "recipes/rar_xl.toml")), "memory://needs")
    by_gpu = {name: estimate(planned, name) for name in GPUS}
    assert set(by_gpu) == {name.value for name in options.GpuName}
    assert by_gpu["a100"].train.gpu_hours / by_gpu["h100"].train.gpu_hours == pytest.approx(989 / 312)
    assert by_gpu["h200"].train.largest_micro_batch > by_gpu["h100"].train.largest_micro_batch
    assert by_gpu["h200"].sample.gpu_hours < by_gpu["h100"].sample.gpu_hours
    train = by_gpu["h100"].train
    assert train.gpu_hours * 3600 * 0.4 * 989e12 == pytest.approx(train.flops)


def test_the_time_on_this_machine_is_that_of_its_device(digits_recipe, monkeypatch):
    def needs(*overrides):
        return estimate(plan(load_recipe(digits_recipe, overrides), "memory://needs"))

    small, slow = needs(), needs("train.precision=bfloat16")
    assert small.here.train_seconds == pytest.approx(small.train.flops / CORE_RATE), "a small recipe takes one core"
    assert (small.here.device, small.here.precision, slow.here.precision) == ("cpu", "float32", "bfloat16")
    assert estimate_as_json(small)["here"]["sample_seconds"] == pytest.approx(small.sample.flops / CORE_RATE)
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", lambda: frozenset({"sse2", "avx2"}))
    slow = needs("train.precision=bfloat16")
    assert slow.here.train_seconds == pytest.approx(10 * small.here.train_seconds)
    assert "set train.precision = 'float32'" in slow.here.basis
    monkeypatch.setattr("rarkit.estimate.this_machine.here", lambda: "cuda")
    monkeypatch.setattr("rarkit.estimate.this_machine.auto_precision", lambda device: "bfloat16")
    monkeypatch.setattr("rarkit.estimate.this_machine.gpu_name", lambda: "NVIDIA H100 80GB HBM3")
    assert needs("train.precision=auto").here.train_seconds == pytest.approx(small.train.flops / (0.4 * 989e12))
    for name in ("NVIDIA GeForce GTX 1080", "NVIDIA H100 PCIe"):
        monkeypatch.setattr("rarkit.estimate.this_machine.gpu_name", lambda name=name: name)
        assert needs().here.train_seconds is None
        assert name in needs().here.basis


def test_steps_are_measured_with_what_a_run_takes(small_recipe, monkeypatch):
    advanced, advance = [], Trainer.advance

    def advancing(self, **flags):
        advanced.append(self.settings.batch_size)
        advance(self, **flags)

    monkeypatch.setattr(
        Trainer, "advance", lambda self, **flags: advanced.append(self.settings.batch_size) or advance(self, **flags)
    )
    planned = plan(load_recipe(small_recipe, ["train.steps=1000", "train.batch_size=6"]), "memory://needs")
    here = estimate(planned, measure=True).here
    assert advanced == [6] * 4
    assert here.basis == "measured on 3 steps"
    assert here.train_seconds > 0 < here.sample_seconds
    # By the assumed rate, a step of more than one image takes too long.
    one = planned.experiment.costs.step_flops(1, checkpointing=False)
    monkeypatch.setattr("rarkit.estimate.this_machine.CORE_RATE", one / LONGEST_STEP)
    estimate(planned, measure=True)
    assert advanced[4:] == [1] * 4


def test_one_process_is_measured_with_passes_that_fit(small_recipe, monkeypatch):
    advanced, advance = [], Trainer.advance
    monkeypatch.setattr(
        Trainer, "advance", lambda self, **flags: advanced.append(self.settings.batch_size) or advance(self, **flags)
    )
    monkeypatch.setattr("rarkit.stages.passes.Passes.most", lambda self: 2)
    changes = ["train.batch_size=6", "train.data_parallel=fsdp", "train.shard=3"]
    assert estimate(plan(load_recipe(small_recipe, changes), "memory://needs"), measure=True, processes=3).here.train_seconds > 0
    assert set(advanced) == {2}


def test_what_cannot_run_here_is_not_measured(digits_recipe):
    with pytest.raises(CapabilityError, match="cannot drop attention weights"):
        estimate(plan(load_recipe(digits_recipe, ["attention.name=flex"]), "memory://needs"), measure=True)


def test_the_command_is_quick_and_ends_well(tmp_path):
    recipe = str(ROOT / "recipes/rar_l.toml")
    options = ("--store", str(tmp_path / "store"))
    code = f"""
import sys
from rarkit.cli.app import app

for more in ((), ("--json", "--gpu", "h200", "--processes", "8")):
    app(["plan", {recipe!r}, *{options!r}, *more], standalone_mode=False)
    print("torch" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    table, text, end = printed.split("False\n")
    assert end == ""
    lines = table.splitlines()
    shown = (
        "461,668,352 parameters",
        "GPU-hours",
        "at 64 images per pass",
        "2,048 images, in 32 passes of 64",
        "plain, sdpa can be used here",
        "KV cache",
        "on a CPU",
        "this machine",
        "✗ dataset",
        "✗ tokenizer",
        "blocked",
    )
    for word in shown:
        assert any(word in line for line in lines), word
    planned = json.loads(text)
    assert planned["needs"]["gpu"]["title"] == "H200 141 GB"
    assert planned["needs"]["model"]["parameters"] == 461_668_352
    assert (planned["needs"]["train"]["share"], planned["needs"]["train"]["accumulation"]) == (256, 2)
    assert planned["needs"]["train"]["memory"]["total"] > planned["needs"]["train"]["memory"]["activations"] > 0
    assert {stage["fingerprint"] for stage in planned["stages"]} == {None}
    rarkit = Path(sys.executable).with_name("rarkit")
    refused = subprocess.run([rarkit, "run", recipe], capture_output=True, text=True, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: there is no ")
    assert len(refused.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [[], ["model.name=llama_ar", "model.num_heads=1", "model.hidden_size=8", "model.depth=2"]])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_moments_and_average_are_what_training_holds(small_recipe, changes, optimizer):
    recipe = load_recipe(small_recipe, [f"train.optimizer={optimizer}", "train.ema_decay=0.9", *changes])
    planned = plan(recipe, "memory://moments")
    config, attention = planned.experiment.config, recipe.attention.build()
    model = recipe.model.create(config, attention, 0)
    optimizers, average = make_optimizers(model, recipe.train), Average({"model": model}, 0.9)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    for each in optimizers:
        each.step()
    moments = [value for each in optimizers for state in each.state.values() for value in state.values() if value.ndim]
    needed = estimate(planned)
    assert needed.train.memory.optimizer == sum(value.nbytes for value in moments)
    assert needed.train.memory.average == sum(tensor.nbytes for tensor in average.state().values())
    held = [*model.parameters(), *moments, *average.state().values()]
    assert needed.disk["checkpoints"] == 2 * sum(tensor.nbytes for tensor in held)
    assert needed.train.memory.persistent >= sum(tensor.nbytes for tensor in held)
