"""Ctrl-C, SIGTERM, SIGUSR1, SIGHUP: a checkpoint, one line, exit codes 130, 143, 138, 129, and the same bits if the run goes on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from rarkit import load_recipe, plan, run
from rarkit.engine.checkpoints import Checkpoints
from rarkit.stages.train import training_log
from tests.pipeline.stopped import stopped_in, stopped_in_python, stopped_in_training
from tests.processes import call, call_ranks

RARELY = ("--set", "train.checkpoint_every=100")
STANDS = "Training stands at step 4 of 6, in a checkpoint: the same command goes on from there."


@pytest.fixture
def store(small_finished, tmp_path):
    """A store that training comes next in."""
    shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    for stage in ("train", "sample", "evaluate"):
        shutil.rmtree(tmp_path / "store" / stage)
    return tmp_path / "store"


@pytest.fixture
def arguments(small_recipe, store, tmp_path):
    return ["run", small_recipe, *RARELY, "--store", store, "--runs", tmp_path / "runs", "--device", "cpu"]


def goes_on(recipe, store, undisturbed, place="step 4 of 6", *, exactly=True):
    """Checks where the plan goes on, and that the run then ends with the bits of an undisturbed one.

    Not the bits, if another number of processes began it: they add up gradients in another order.
    """
    loaded = load_recipe(recipe, RARELY[1:])
    assert plan(loaded, str(store))["train"].reason == f"goes on after {place}"
    again = run(loaded, str(store), device="cpu", runs=store.parent / "runs", quiet=True)
    if not exactly:
        logs = [training_log(of.plan["train"].output) for of in (undisturbed, again)]
        for name, values in logs[0].items():
            np.testing.assert_allclose(logs[1][name], values, rtol=1e-5 if name == "loss" else 1e-4)
        return
    for stage in ("train", "sample"):
        outputs = [of.plan[stage].output for of in (undisturbed, again)]
        first, second = ({name: output.read_array(name).tolist() for name in output.record().arrays} for output in outputs)
        assert first == second
    assert len({of.plan["train"].output.read_file("model.safetensors") for of in (undisturbed, again)}) == 1


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 138), ("SIGHUP", 129)])
def test_training_keeps_a_checkpoint_and_goes_on(name, code, arguments, store, small_recipe, small_finished, tmp_path):
    done = call(tmp_path, stopped_in_training, name, 3, name != "SIGINT", *arguments)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == f"stopped by {name}. {STANDS}"
    assert done.stderr.count("stopped by") == 1
    assert "Traceback" not in done.stderr
    assert not list(store.rglob("lock.json"))
    goes_on(small_recipe, store, small_finished)


def test_who_forces_a_stage_is_told_not_to_begin_again(arguments, store, tmp_path):
    done = call(tmp_path, stopped_in_training, "SIGINT", 3, False, *arguments, "--from", "train")
    assert done.stderr.splitlines()[-1] == (
        f"stopped by SIGINT. {STANDS} But leave out --from and --force (start and force in Python), which would begin again."
    )
    done = call(tmp_path, stopped_in, "tokenize", "SIGTERM", *arguments, "--force", "tokenize")
    assert "What is finished is kept: the same command goes on from there. But leave out --from and" in done.stderr


def test_a_second_interrupt_ends_at_once(arguments, store, small_recipe, tmp_path):
    done = call(tmp_path, stopped_in_training, "SIGINT", 3, True, *arguments)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].startswith("stopped by SIGINT. What is finished is kept")
    assert "Traceback" not in done.stderr
    reason = plan(load_recipe(small_recipe), str(store))["train"].reason
    assert reason == "an earlier run left nothing whole to go on from"


def test_a_signal_in_the_last_step_finishes_the_stage(arguments, store, small_recipe, tmp_path):
    assert call(tmp_path, stopped_in_training, "SIGTERM", 5, False, *arguments).returncode == 143
    assert plan(load_recipe(small_recipe), str(store))["train"].action == "cached"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_from_python(name, store, small_recipe, tmp_path):
    done = call(tmp_path, stopped_in_python, name, 3, small_recipe, str(store), str(tmp_path / "runs"))
    assert done.stdout.splitlines() == [f"{'KeyboardInterrupt' if name == 'SIGINT' else 'Stopped'} {STANDS}", "True"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_ranks_stop_together(name, arguments, store, small_recipe, small_finished, tmp_path):
    """Torchrun stops a rank that waits, and the first rank once more while it writes its checkpoint."""
    done = call_ranks(2, tmp_path, stopped_in_training, name, 3, True, *arguments)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if STANDS in line]
    assert len(lines) == 1, done.stderr
    assert not list(store.rglob("lock.json"))
    goes_on(small_recipe, store, small_finished, exactly=False)


@pytest.mark.parametrize(
    ("stage", "name", "code"), [("fit", "SIGTERM", 143), ("tokenize", "SIGINT", 130), ("evaluate", "SIGUSR1", 138)]
)
def test_other_stages_end_with_one_line(stage, name, code, arguments, store, tmp_path):
    shutil.rmtree(store / stage, ignore_errors=True)
    done = call(tmp_path, stopped_in, stage, name, *arguments, "--quiet")
    assert done.returncode == code
    assert done.stderr.splitlines() == [f"stopped by {name}. What is finished is kept: the same command goes on from there."]
    assert not list(store.rglob("lock.json"))


def test_checkpoints_by_time(store, small_recipe, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, tensors, facts: written.append(step))
    settings = [RARELY[1], "train.checkpoint_minutes=1e-9"]
    run(load_recipe(small_recipe, settings), str(store), until="train", device="cpu", runs=tmp_path / "runs", quiet=True)
    assert written == [1, 2, 3, 4, 5]


def test_what_auto_stood_for_is_recorded_and_kept_elsewhere(store, small_recipe, small_finished, tmp_path, monkeypatch):
    recipe = load_recipe(small_recipe, [*RARELY[1:], "train.precision=auto"])
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", frozenset)
    begun = plan(recipe, str(store))["train"]
    assert "precision" not in begun.identity["train"]

    save = Checkpoints.save

    def stopping(self, step, tensors, facts):
        save(self, step, tensors, facts)
        raise KeyboardInterrupt

    often = load_recipe(small_recipe, ["train.precision=auto"])
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(often, str(store), device="cpu", runs=tmp_path / "runs", quiet=True)
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", lambda: frozenset({"amx_bf16"}))
    done = run(recipe, str(store), device="cpu", runs=tmp_path / "runs", quiet=True)
    output = done.plan["train"].output
    assert output.fingerprint == begun.fingerprint
    assert (output.record().precision, output.record().device) == ("float32", "cpu")
    assert output.record().seconds > 0
    assert output.read_file("model.safetensors") == small_finished.plan["train"].output.read_file("model.safetensors")
    receipt = json.loads((done.folder / "receipt.json").read_text())
    train = next(stage for stage in receipt["stages"] if stage["name"] == "train")
    assert (train["precision"], train["seconds"]) == ("float32", output.record().seconds)
    assert "images in float32" in (done.folder / "report.html").read_text()
