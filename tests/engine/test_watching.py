"""What is seen of a training while it runs: speed, held-out bits per token, previews; what is said when it fails."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rarkit import load_recipe, plan, run
from rarkit.cache.token_lines import import_tokens
from rarkit.engine.average import Average
from rarkit.engine.checkpoint_seal import sealed
from rarkit.engine.speed import Speed, progress_line
from rarkit.errors import CapabilityError, NotFiniteError, RecipeError
from rarkit.files.stored_json import read_json
from rarkit.models import RAR
from rarkit.permutation_schedules.draw import draw_orders
from rarkit.pipeline.run import rehearse
from rarkit.randomness import derived_seed, drawn_rows
from rarkit.runtime.machine import GPUS, gpu_called
from rarkit.stages.base import Work
from rarkit.stages.held_out import HeldOut, HeldOutBits, HeldOutLog, held_out_bits
from rarkit.stages.previews import Previews
from rarkit.stages.train import trained_model, training_log
from rarkit.trackers.tracking import Trackers
from rarkit.training.likelihood import nats_per_image
from tests.pipeline.stopped import stopped_in_training
from tests.processes import call, call_ranks
from tests.processes import rarkit as command_line
from tests.training.test_training import trainer

IMAGES, ORDERS = 37, 2
WATCHED = ("train.evaluate_every=2", f"train.evaluate_images={IMAGES}", f"train.evaluate_orders={ORDERS}")
PREVIEWS = ("train.preview_every=3", "permutation_schedule.name=constant", "permutation_schedule.ratio=0.5")


@pytest.fixture
def store(small_finished, tmp_path):
    """A store that training comes next in."""
    shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    for stage in ("train", "sample", "evaluate"):
        shutil.rmtree(tmp_path / "store" / stage)
    return tmp_path / "store"


@pytest.fixture
def train(small_recipe, store, tmp_path):
    """Trains the small recipe with some changes; returns the run and the output."""

    def trained(*changes):
        done = run(
            load_recipe(small_recipe, list(changes)), str(store), until="train", device="cpu", runs=tmp_path / "runs", quiet=True
        )
        return done, done.plan["train"].output

    return trained


# Speed


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 100)), min_size=1, max_size=40))
def test_speed_is_that_of_the_steps_without_the_pauses(taken):
    clock = Clock()
    speed = Speed(8, flops=600, peak=100.0, clock=clock)
    assert speed.images is None
    assert speed.utilisation is None
    for step, pause in taken:
        clock.now += step
        speed.stepped()
        with speed.paused():
            clock.now += pause
    mean = sum(step for step, _ in taken) / len(taken)
    assert speed.seconds == pytest.approx(mean)
    assert speed.images == pytest.approx(8 / mean)
    assert speed.utilisation == pytest.approx(600 / mean / 100)


def test_the_line_says_what_is_known():
    clock = Clock()
    record = {"loss": 1.5, "accuracy": 0.5, "gradient_norm": 2.25, "learning_rate": 4e-4, "random_ratio": 0.25, "step": 3}
    assert progress_line(record, Speed(8, clock=clock)) == "loss 1.500, r 0.25, rate 4.0e-04, gradient 2.25"
    speed = Speed(8, flops=41, peak=100.0, clock=clock)
    clock.now = 1.0
    speed.stepped()
    assert progress_line(record, speed).endswith("gradient 2.25, 8 images/s, MFU 41 %")
    two = {"first_loss": 1.0, "second_loss": 2.0, "first_gradient_norm": 3.0, "second_gradient_norm": 4.0}
    assert progress_line(two, Speed(8)) == "first loss 1.000, second loss 2.000, first gradient 3.00, second gradient 4.00"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Tesla T4", None),
    ],
)
def test_a_peak_is_of_the_card_that_the_data_sheet_is_of(name, model):
    assert gpu_called(name) == (None if model is None else GPUS[model])


# Held-out bits per token


def expected_bits(output, tokens, recipe):
    """By the function that evaluation uses, one order after the other."""
    experiment = plan(recipe).experiment
    model = trained_model(output, recipe.model, experiment.config, recipe.attention, "cpu")
    rows = drawn_rows(recipe.seed, 300, IMAGES)
    images, labels = (tokens.read_array(f"test_{name}")[rows].astype(np.int64) for name in ("tokens", "labels"))

    def bits(orders_NL):
        nats = [
            nats_per_image(model, images[i : i + 1], labels[i : i + 1], orders_NL[i], batch_size=1)[0] for i in range(len(rows))
        ]
        return np.mean(nats) / math.log(2)

    seed = derived_seed(recipe.seed, "held-out orders")
    random = [bits(draw_orders(experiment.order_L, 1.0, seed=seed, step=which, indices=rows)) for which in range(1, ORDERS + 1)]
    return bits(np.tile(experiment.order_L, (len(rows), 1))), np.mean(random)


@pytest.mark.parametrize("average", [(), ("train.ema_decay=0.5",)])
def test_held_out_bits_are_those_of_the_model_as_it_would_be_kept(average, train, small_finished):
    done, output = train(*WATCHED, *average)
    entries = held_out_bits(output)
    assert [entry.step for entry in entries] == [2, 4, 6]
    along, random = expected_bits(output, small_finished.plan["tokenize"].output, done.plan.recipe)
    assert entries[-1].held_out_bits == pytest.approx(along, rel=1e-5)
    assert entries[-1].held_out_bits_random_orders == pytest.approx(random, rel=1e-5)
    assert entries[-1].held_out_bits != pytest.approx(entries[0].held_out_bits, rel=1e-5)


def test_looks_change_nothing_and_are_shown(train):
    done, output = train(*WATCHED, *PREVIEWS[:1], "train.ema_decay=0.9")
    lines = [json.loads(line) for line in (done.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out_bits" in line] == [2, 4, 6]
    assert [line["step"] for line in lines if "loss" in line] == list(range(6))
    assert [lines[place]["step"] for place in (2, 5, 8)] == [2, 4, 6]
    assert "held-out images, random orders" in (done.folder / "report.html").read_text()
    pictures = sorted(path.name for path in (done.folder / "previews").iterdir())
    assert pictures == ["step-000003.png", "step-000006.png"]
    with Image.open(done.folder / "previews" / pictures[0]) as picture:
        assert min(picture.size) > 100
    model, log = output.read_file("model.safetensors"), training_log(output)
    shutil.rmtree(output.path)
    _, plain = train("train.ema_decay=0.9")
    assert plain.fingerprint == output.fingerprint
    assert plain.read_file("model.safetensors") == model
    for name, values in training_log(plain).items():
        np.testing.assert_array_equal(values, log[name])


def test_without_random_orders_in_training_none_are_measured(train):
    _, output = train(*WATCHED, "permutation_schedule.name=constant", "permutation_schedule.ratio=0.0")
    assert [entry.held_out_bits_random_orders for entry in held_out_bits(output)] == [None] * 3


@pytest.mark.parametrize(
    ("count", "changes"),
    [(2, []), (2, ["train.data_parallel=fsdp", "train.ema_decay=0.5", "train.reshard_after_forward=false"])],
)
def test_ranks_measure_what_one_does(count, changes, train, small_recipe, store, tmp_path):
    """Their training, too, goes on as without a look: weights that a look has gathered are not those of the next step."""
    average = [change for change in changes if "ema" in change]
    _, alone = train(*WATCHED, *PREVIEWS, *average)
    expected, log = held_out_bits(alone), training_log(alone)
    shutil.rmtree(store / "train")
    changed = [word for change in (*WATCHED, *PREVIEWS, *changes) for word in ("--set", change)]
    arguments = ["run", small_recipe, *changed, "--until", "train", "--store", store, "--runs", tmp_path / "of_ranks"]
    done = call_ranks(count, tmp_path, command_line, *arguments, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    output = plan(load_recipe(small_recipe, [*WATCHED, *PREVIEWS, *changes]), str(store))["train"].output
    for one, other in zip(held_out_bits(output), expected, strict=True):
        assert one.record() == pytest.approx(other.record(), rel=1e-5)
    np.testing.assert_allclose(training_log(output)["loss"], log["loss"], rtol=1e-5)
    assert len(list(tmp_path.glob("of_ranks/*/previews/*.png"))) == 2


def test_after_a_stop_each_step_is_measured_once(train, small_recipe, store, tmp_path):
    arguments = ["run", small_recipe, *(word for change in WATCHED for word in ("--set", change)), "--store", store]
    done = call(tmp_path, stopped_in_training, "SIGUSR1", 3, False, *arguments, "--runs", tmp_path / "runs", "--device", "cpu")
    assert done.returncode == 138, done.stderr
    assert "Training stands at step 4 of 6" in done.stderr
    _, output = train(*WATCHED)
    assert [entry.step for entry in held_out_bits(output)] == [2, 4, 6]


def test_a_signal_breaks_a_look_off(train, monkeypatch):
    """What is held back is delivered after the look's next image, with a checkpoint."""
    sums = HeldOut._sums

    def interrupted(self, look):
        if look.trainer.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            assert sums(self, look) is None
            return None
        return sums(self, look)

    with monkeypatch.context() as patch:
        patch.setattr(HeldOut, "_sums", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            train(*WATCHED, "train.checkpoint_every=100")
    assert "Training stands at step 4 of 6, in a checkpoint" in caught.value.__notes__[0]
    _, output = train(*WATCHED, "train.checkpoint_every=100")
    assert [entry.step for entry in held_out_bits(output)] == [2, 4, 6]


def test_a_signal_breaks_previews_off(train, monkeypatch):
    """They are made up for when the training goes on, at the step that it goes on from."""
    images = Previews._images

    def interrupted(self, weights, look):
        os.kill(os.getpid(), signal.SIGINT)
        return images(self, weights, look)

    with monkeypatch.context() as patch:
        patch.setattr(Previews, "_images", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            train(*PREVIEWS, "train.checkpoint_every=100")
    assert "Training stands at step 3 of 6, in a checkpoint" in caught.value.__notes__[0]
    done, _ = train(*PREVIEWS, "train.checkpoint_every=100")
    assert sorted(path.name for path in (done.folder / "previews").iterdir()) == ["step-000003.png", "step-000006.png"]


def test_trackers_are_told(train, monkeypatch):
    told = []
    monkeypatch.setattr(Trackers, "log", lambda self, step, numbers: told.append((step, *numbers)))
    monkeypatch.setattr(Trackers, "image", lambda self, step, name, image_HWC: told.append((step, name, image_HWC.ndim)))
    train(*WATCHED, *PREVIEWS)
    looks = [entry for entry in told if "train/loss" not in entry]
    measured = "train/held_out_bits", "train/held_out_bits_random_orders"
    previews = "train/previews", 3
    assert looks == [(2, *measured), (3, *previews), (4, *measured), (6, *measured), (6, *previews)]
    steps = [step for step, *_ in told]
    assert steps == sorted(steps)


def test_without_held_out_images_the_plan_says_so(small_recipe, tmp_path):
    lines = tmp_path / "tokens.jsonl"
    lines.write_text("".join(json.dumps({"class_id": row % 10, "tokens": [row % 5] * 4}) + "\n" for row in range(8)))
    import_tokens(str(lines), str(tmp_path / "tokens"), grid=(2, 2), codebook_size=5, num_classes=10)
    recipe = load_recipe(small_recipe, ["train.evaluate_every=2", f"train.tokens={tmp_path / 'tokens'}"])
    with pytest.raises(RecipeError, match=r"measures held-out images, and train\.tokens = .* has none\. Leave evaluate_every out"):
        plan(recipe, str(tmp_path / "store"))


def test_a_rehearsal_rehearses_them(small_recipe, tmp_path):
    done = rehearse(load_recipe(small_recipe, [*WATCHED, *PREVIEWS]), device="cpu", runs=tmp_path, quiet=True)
    assert [path.name for path in (done.folder / "previews").iterdir()] == ["step-000004.png"]
    assert "held_out_bits_random_orders" in (done.folder / "log.jsonl").read_text()


@given(st.lists(st.floats(), max_size=5))
def test_any_number_comes_back(values):
    """Also where a model gives a held-out image no probability at all."""
    entries = [HeldOutBits(step=step, held_out_bits=bits) for step, bits in enumerate(values)]
    stored = json.dumps({"entries": [entry.model_dump() for entry in entries]}).encode()
    read = read_json(HeldOutLog, stored, "a file", "").entries
    assert str([entry.held_out_bits for entry in read]) == str(values)


def test_pictures_of_an_earlier_training_go(train, tmp_path):
    train(*PREVIEWS)
    folder = next((tmp_path / "runs").glob("*/previews"))
    for name in ("step-000002.png", "step-000009.png", "mine.png"):
        (folder / name).write_bytes(b"")
    shutil.rmtree(tmp_path / "store" / "train")
    train(*PREVIEWS)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.png", "step-000003.png", "step-000006.png"]


def test_previews_need_the_tokenizer(small_recipe, store):
    """Its output is kept or made, but is not in the fingerprint."""
    shutil.rmtree(store / "fit")
    without, with_previews = (plan(load_recipe(small_recipe, list(sets)), str(store), until="train") for sets in ((), PREVIEWS[:1]))
    assert (without["fit"].action, with_previews["fit"].action) == ("not needed", "run")
    assert without["train"].fingerprint == with_previews["train"].fingerprint


# Checkpoints that are kept


def test_every_nth_checkpoint_stays_beside_the_model(train):
    _, output = train("train.keep_every=3", "train.checkpoint_every=2", "train.steps=8")
    assert [seal.step for seal in sealed(output)] == [6, 3]
    assert output.defect() is None
    record = output.record()
    assert {name for name in record.files if name.startswith("checkpoint-")} == {
        name for step in (3, 6) for name in (f"checkpoint-{step}.json", f"checkpoint-{step}-rank-0.safetensors")
    }
    assert set(output.file_names()) == set(record.files)


def test_the_last_checkpoints_are_kept_while_it_trains(train, monkeypatch):
    monkeypatch.setattr(Work, "remove_checkpoints", lambda self, keep=(): None)
    _, output = train("train.keep_checkpoints=2", "train.checkpoint_every=1")
    assert [seal.step for seal in sealed(output)] == [5, 4]


# Failures


def failing_at(monkeypatch, step, fail):
    forward, calls = RAR.forward, []

    def broken(self, *arguments, **named):
        logits = forward(self, *arguments, **named)
        if not self.training:
            return logits
        calls.append(1)
        return fail(logits) if len(calls) > step else logits

    monkeypatch.setattr(RAR, "forward", broken)


@pytest.mark.parametrize(("step", "told"), [(3, "The last good checkpoint is that of step 2."), (1, "There is no checkpoint")])
def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(step, told, train, monkeypatch):
    failing_at(monkeypatch, step, lambda logits: logits * math.nan)
    with pytest.raises(NotFiniteError, match=rf"the loss became nan at step {step}, on rows \d") as caught:
        train()
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((), r"Set train\.micro_batch_size = 2 \(it is 4\), or set train\.activation_checkpointing = true, or set train\.data"),
        (("train.micro_batch_size=1",), r"Set train\.activation_checkpointing = true, or set train\.data_parallel"),
    ],
)
def test_out_of_memory_says_what_to_lower(changes, told, train, monkeypatch):
    def fail(logits):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    failing_at(monkeypatch, 2, fail)
    with pytest.raises(CapabilityError, match=told) as caught:
        train(*changes)
    size = 4 if not changes else 1
    assert "By estimate, a process needs 0.0 GB: weights 0.0, gradients 0.0, optimizer 0.0" in str(caught.value)
    assert f", with {size} images per pass." in str(caught.value)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_a_preview_that_does_not_fit_says_so(train, monkeypatch):
    def fail(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("rarkit.sampling.generation.generate", fail)
    with pytest.raises(CapabilityError, match=r"previews beside the training\. Leave train\.preview_every out"):
        train(*PREVIEWS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(small_recipe, small_finished, store, tmp_path):
    """Looks beside checkpoints that a thread writes; and memory that does not suffice, in truth."""
    changes = [*WATCHED, *PREVIEWS, "train.checkpoint_every=1", "train.keep_every=3"]

    def trained(*more):
        recipe = load_recipe(small_recipe, [*changes, *more])
        return run(recipe, str(store), until="train", device="cuda", runs=tmp_path / "runs", quiet=True)

    told = r"the memory of cuda \([\d.]+ GB\) does not suffice.* Set train\.micro_batch_size"
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(CapabilityError, match=told):
            trained("model.hidden_size=1024")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    done = trained()
    output = done.plan["train"].output
    along, random = expected_bits(output, small_finished.plan["tokenize"].output, done.plan.recipe)
    last = held_out_bits(output)[-1]
    assert (last.step, last.held_out_bits, last.held_out_bits_random_orders) == pytest.approx((6, along, random), rel=1e-4)
    assert len(list((done.folder / "previews").iterdir())) == 2
    assert [seal.step for seal in sealed(output)] == [3]
    assert output.defect() is None


def test_other_errors_are_left_as_they_are(train, monkeypatch):
    def fail(logits):
        raise RuntimeError("something else")

    failing_at(monkeypatch, 0, fail)
    with pytest.raises(RuntimeError, match="something else"):
        train()


def test_evaluating_puts_everything_back():
    """Weights, mode and gradients are those of before, also after an error."""
    alone = trainer(ema_decay=0.5)
    for _ in range(3):
        alone.advance()
    before = {name: weight.clone() for name, weight in alone.model.state_dict().items()}
    average: Average = alone.trainer._average
    averaged = {name: weight.clone() for name, weight in average.weights("model").items()}

    def look():
        with alone.trainer.evaluating() as networks:
            assert not networks["model"].training
            assert not torch.is_grad_enabled()
            for name, weight in networks["model"].state_dict().items():
                torch.testing.assert_close(weight, averaged[name], rtol=0, atol=0)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        look()
    assert alone.model.training
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)
