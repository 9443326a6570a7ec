"""One of two processes that train together dies, or is stopped alone: all end, with the reason, and the next run ends as if nothing
had happened. benchmarks/stops.py has more of them, at random points, and measures how long it takes."""

from __future__ import annotations

import re
import shutil

import pytest
import torch

from rarkit import load_recipe, plan
from rarkit.cache.run_folders import MODEL_FILE
from rarkit.stages.train import training_log
from tests.engine.saving import whole_tensors
from tests.engine.stops import WHOLE, Point, Stop, join_again_and_again, stopped_at
from tests.processes import call, call_ranks
from tests.processes import rarkit as command_line

WAYS = {"ddp": [], "fsdp": ["--set", "train.data_parallel=fsdp"]}
GONE = (
    r"another process of this run was killed, or cannot be reached \([^[].*\)\. The same command goes on from the last checkpoint\."
)
STANDS = r"Training stands at step 3 of 6, in a checkpoint: the same command goes on from there\."
STOPS = {
    "the first, in a step": ("ddp", [Stop("SIGKILL", 0, Point(3))], "", 2),
    "the second, in a step": ("fsdp", [Stop("SIGKILL", 1, Point(3))], GONE, 2),
    "the second, in a checkpoint": ("fsdp", [Stop("SIGKILL", 1, Point(3, 5))], GONE, 2),
    "the first, before the seal of a checkpoint": ("ddp", [Stop("SIGKILL", 0, Point(3, WHOLE))], "", 2),
    "a signal to the second alone": ("ddp", [Stop("SIGTERM", 1, Point(1))], STANDS, 3),
    "a signal to the first alone": ("fsdp", [Stop("SIGTERM", 0, Point(1))], STANDS, 3),
    "SIGKILL cuts an emergency checkpoint off": ("ddp", [Stop("SIGTERM", 1, Point(1)), Stop("SIGKILL", 1, Point(3, 5))], GONE, 2),
    "the disk of the second is full": ("fsdp", [Stop("full", 1, Point(3, 5))], r"No space left on device", 2),
}
"""How two processes share the training, where they are stopped, what is told, and the step where the training goes on."""


def begin(way, recipe, finished, folder, stops=(), count=2):
    """Trains in two processes, or one, in a store that training comes next in."""
    if not (folder / "store").exists():
        shutil.copytree(finished.plan.store.root, folder / "store")
        for stage in ("train", "sample", "evaluate"):
            shutil.rmtree(folder / "store" / stage)
    for name in ("stdout", "stderr"):
        (folder / name).unlink(missing_ok=True)
    arguments = ["run", recipe, *WAYS[way], "--until", "train", "--store", folder / "store", "--runs", folder, "--device", "cpu"]
    work = [stopped_at, stops] if stops else [command_line]
    return call_ranks(count, folder, *work, *arguments) if count > 1 else call(folder, *work, *arguments)


def bits(recipe, folder):
    """Weights and log."""
    output = plan(load_recipe(recipe), str(folder / "store"))["train"].output
    assert output.defect() is None
    return output.read_file(MODEL_FILE), {name: values.tobytes() for name, values in training_log(output).items()}


@pytest.fixture(scope="module")
def undisturbed(small_recipe, small_finished, tmp_path_factory):
    """The bits of an undisturbed training by two processes."""
    found = {}

    def of(way):
        if way not in found:
            folder = tmp_path_factory.mktemp(way)
            done = begin(way, small_recipe, small_finished, folder)
            assert done.returncode == 0, done.stderr
            found[way] = bits(small_recipe, folder)
        return found[way]

    return of


@pytest.mark.parametrize("case", STOPS)
def test_all_end_and_go_on(case, undisturbed, small_recipe, small_finished, tmp_path):
    way, stops, told, goes_on = STOPS[case]
    done = begin(way, small_recipe, small_finished, tmp_path, stops)
    assert done.returncode > 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    # Where the first is gone, which speaks for all, torchrun gives the reason.
    assert len(said) == (told != ""), done.stderr
    assert re.search(told, said[0]) if told else "Signal 9 (SIGKILL)" in done.stderr
    assert "rarkit/engine" not in done.stderr, "a traceback"
    assert told == "" or not list((tmp_path / "store").rglob("lock.json"))
    again = begin(way, small_recipe, small_finished, tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"resuming from the checkpoint at step {goes_on}" in again.stderr
    assert bits(small_recipe, tmp_path) == undisturbed(way)


def test_after_a_full_disk_the_exit_code_says_that_the_same_command_can_go_on(small_recipe, small_finished, tmp_path):
    done = begin("ddp", small_recipe, small_finished, tmp_path, [Stop("full", 0, Point(3, 5))], count=1)
    assert done.returncode == 1, "2 is for requests that have to be changed"
    assert "No space left on device. Free some space. Nothing is lost: run again to go on." in " ".join(done.stderr.split())
    again = begin("ddp", small_recipe, small_finished, tmp_path, count=1)
    assert (again.returncode, "resuming from the checkpoint at step 2" in again.stderr) == (0, True)


def test_the_state_of_the_optimizer_is_that_of_all_processes(small_recipe, small_finished, tmp_path):
    checkpoints = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        done = begin("fsdp", small_recipe, small_finished, folder, [Stop("SIGTERM", count - 1, Point(1))], count)
        assert re.search(STANDS, done.stderr), done.stderr
        [place] = (folder / "store/train").glob("*/files")
        checkpoints.append(whole_tensors(place, 3))
    one, two = checkpoints
    assert one.keys() == two.keys()
    moments = [name for name in one if name.endswith(("exp_avg", "exp_avg_sq"))]
    assert moments
    assert all(one[name].any() for name in moments)
    # Biases of keys have no gradient but for rounding.
    largest = {what: max(float(one[name].abs().max()) for name in moments if name.endswith(what)) for what in ("avg", "avg_sq")}
    for name in moments:
        atol = 1e-5 * largest["avg_sq" if name.endswith("avg_sq") else "avg"]
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=atol, msg=name)


def test_processes_train_one_thing_after_another(tmp_path):
    done = call_ranks(2, tmp_path, join_again_and_again)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "2", "2"]
