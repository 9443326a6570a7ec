"""SIGKILL in every stage, then run again: the same bits as if nothing had happened."""

from __future__ import annotations

import errno
import os
import shutil
import signal

import numpy as np
import pytest

from rarkit import load_recipe, plan, run
from rarkit.errors import RarkitWarning
from rarkit.pipeline.plan import STAGE_NAMES
from rarkit.rendering.png import write_png
from tests.pipeline.killed import killed_at_a_write
from tests.processes import call

LAST_WRITES = {"fit": 2, "tokenize": 6, "train": 12, "sample": 3, "reference": 23, "evaluate": 4}
"""How many writes each stage makes: a kill there comes late."""

GOES_ON = {
    ("tokenize", True): "goes on after train 600 of 600 images, test 300 of 300 images",
    ("sample", True): "goes on after 300 of 300 images",
    ("train", True): "goes on after step 4 of 6",
    ("reference", True): (
        "goes on after real 600 of 600 images, test 300 of 300 images, reconstructions 300 of 300 images, uniform 300 of 300 images"
    ),
}
"""What the plan says of a stage that was killed late."""
NOTHING_TO_GO_ON_FROM = "an earlier run left nothing whole to go on from"


def run_killed(folder, recipe, stage, at):
    return call(folder, killed_at_a_write, recipe, str(folder / "store"), str(folder / "runs"), stage, at)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_killed_and_run_again(stage, late, small_finished, small_recipe, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(small_finished.plan.store.root, store)
    for later in STAGE_NAMES[STAGE_NAMES.index(stage) :]:
        shutil.rmtree(store / later)
    killed = run_killed(tmp_path, small_recipe, stage, LAST_WRITES[stage] if late else 1)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    recipe = load_recipe(small_recipe)
    planned = plan(recipe, str(store))
    assert (planned[stage].action, planned[stage].reason) == ("run", GOES_ON.get((stage, late), NOTHING_TO_GO_ON_FROM))
    again = run(recipe, str(store), device="cpu", runs=tmp_path / "runs", quiet=True)
    for name in STAGE_NAMES:
        undisturbed, resumed = small_finished.plan[name].output, again.plan[name].output
        assert resumed.defect() is None
        assert resumed.record().arrays == undisturbed.record().arrays
        for array in undisturbed.record().arrays:
            np.testing.assert_array_equal(resumed.read_array(array), undisturbed.read_array(array))
        assert resumed.record().files == undisturbed.record().files
        for file in undisturbed.record().files:
            assert resumed.read_file(file) == undisturbed.read_file(file)


@pytest.fixture
def store(small_finished, tmp_path):
    """A store in which training comes next."""
    copied = shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    for stage in ("train", "sample", "evaluate"):
        shutil.rmtree(copied / stage)
    return copied


def flip(path):
    """Changes the last bit of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_killed_training_goes_on_from_its_checkpoint(store, small_recipe, tmp_path, capfd):
    # Writes 1 and 2 are the checkpoint of step 2 and its seal, 3 is the checkpoint of step 4: it stays half-written.
    assert run_killed(tmp_path, small_recipe, "train", 3).returncode == -signal.SIGKILL
    run(load_recipe(small_recipe), str(store), device="cpu", runs=tmp_path / "runs")
    assert "resuming from the checkpoint at step 2" in capfd.readouterr().err


@pytest.mark.parametrize("others", [True, False])
def test_a_damaged_checkpoint_is_told_of(others, store, small_recipe, tmp_path, capfd):
    recipe = tmp_path / "two.toml"
    recipe.write_text(f'extends = "{small_recipe}"\ntrain.keep_checkpoints = {1 + others}\n')
    # The checkpoints of steps 2 and 4 are two writes each.
    assert run_killed(tmp_path, recipe, "train", 5).returncode == -signal.SIGKILL
    shards = sorted(store.glob("train/*/files/checkpoint-*.safetensors"))
    assert [path.name for path in shards] == [f"checkpoint-{step}-rank-0.safetensors" for step in ((2, 4) if others else (4,))]
    flip(shards[-1])
    then = "passed over" if others else "no other is whole: starts again"
    with pytest.warns(RarkitWarning, match=f"train: the checkpoint of step 4 is damaged, and {then}"):
        run(load_recipe(recipe), str(store), device="cpu", runs=tmp_path / "runs")
    assert ("resuming from the checkpoint at step 2" in " ".join(capfd.readouterr().err.split())) == others


def test_a_damaged_checkpoint_is_not_kept_in_the_output(store, small_recipe, tmp_path):
    recipe = tmp_path / "kept.toml"
    recipe.write_text(f'extends = "{small_recipe}"\ntrain.keep_every = 1\n')
    # Those of steps 1, 2 and 3.
    assert run_killed(tmp_path, recipe, "train", 7).returncode == -signal.SIGKILL
    [flipped, cut] = (next(store.glob(f"train/*/files/checkpoint-{step}-rank-0.safetensors")) for step in (1, 2))
    flip(flipped)
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.warns(RarkitWarning) as warned:
        done = run(load_recipe(recipe), str(store), device="cpu", runs=tmp_path / "runs", until="train", quiet=True)
    assert [str(warning.message) for warning in warned] == [
        "train: the checkpoint of step 2 is damaged, and passed over",
        "train: the checkpoint of step 1 is damaged, so it is not kept.",
    ]
    output = done.plan["train"].output
    assert output.defect() is None
    assert [name for name in output.file_names() if name.endswith(".json")] == [f"checkpoint-{step}.json" for step in (3, 4, 5)]


def test_training_goes_on_where_results_cannot_be_written_meanwhile(store, small_recipe, tmp_path, monkeypatch):
    """The log and previews decide nothing; results are written anew at the end."""

    def full(*arguments):
        if arguments[-1].suffix == ".jsonl" or arguments[-1].parent.name == "previews":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_png(*arguments)

    recipe = tmp_path / "shown.toml"
    recipe.write_text(f'extends = "{small_recipe}"\ntrain.preview_every = 3\n')
    monkeypatch.setattr("rarkit.pipeline.run.started", full)
    monkeypatch.setattr("rarkit.rendering.png.write_png", full)
    with pytest.warns(RarkitWarning, match="No space left on device") as warned:
        done = run(load_recipe(recipe), str(store), device="cpu", runs=tmp_path / "runs", until="train", quiet=True)
    assert [str(warning.message).partition(" cannot be written")[0] for warning in warned] == [
        str(done.folder / "log.jsonl"),
        "the preview of step 3",
        "the preview of step 6",
    ]
    assert done.plan["train"].output.defect() is None
    assert (done.folder / "log.jsonl").exists()
