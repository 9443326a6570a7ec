"""A run killed with SIGKILL in any stage and started again gives the same bits as an uninterrupted one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from rarkit import load_recipe, plan, run
from rarkit.pipeline.plan import STAGE_NAMES

# Kills itself with SIGKILL at the n-th write of a stage: before the write, or halfway through it if it writes a file.
KILLED = """
import os, signal, sys
from rarkit import load_recipe, run
from rarkit.cache.output import StageOutput

recipe, store, runs, stage, at, *overrides = sys.argv[1:]
writes = 0

def killing(name):
    plain = getattr(StageOutput, name)
    def wrapped(self, *args, **kwargs):
        global writes
        if self.stage == stage:
            writes += 1
            if writes == int(at):
                if name == "write_file":
                    plain(self, args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *args, **kwargs)
    setattr(StageOutput, name, wrapped)

for name in ("write_block", "write_file", "finish"):
    killing(name)
run(load_recipe(recipe, overrides), store, device="cpu", runs=runs, quiet=True)
print("writes", writes)
"""
LAST_WRITES = {"fit": 2, "tokenize": 4, "train": 12, "sample": 3, "reference": 12, "evaluate": 4}
"""Roughly the number of writes of each stage in the short recipe, for a late kill."""


def run_killed(recipe, store, runs, stage, at, overrides):
    command = [sys.executable, "-c", KILLED, recipe, str(store), str(runs), stage, str(at), *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_killed_and_run_again(stage, late, finished, digits_recipe, short_overrides, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(finished.plan.store.root, store)
    for later in STAGE_NAMES[STAGE_NAMES.index(stage) :]:
        shutil.rmtree(store / later)
    at = LAST_WRITES[stage] if late else 1
    killed = run_killed(digits_recipe, store, tmp_path / "runs", stage, at, short_overrides)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    recipe = load_recipe(digits_recipe, short_overrides)
    planned = plan(recipe, str(store))
    assert (planned[stage].action, planned[stage].reason) == ("run", "resumes an interrupted run")
    again = run(recipe, str(store), device="cpu", runs=tmp_path / "runs", quiet=True)
    for name in STAGE_NAMES:
        undisturbed, resumed = finished.plan[name].output, again.plan[name].output
        assert resumed.defect() is None
        assert resumed.record()["arrays"] == undisturbed.record()["arrays"]
        for array in undisturbed.record()["arrays"]:
            np.testing.assert_array_equal(resumed.read_array(array), undisturbed.read_array(array))
        assert resumed.record()["files"] == undisturbed.record()["files"]
        for file in undisturbed.record()["files"]:
            assert resumed.read_file(file) == undisturbed.read_file(file)


def test_a_killed_training_goes_on_from_its_checkpoint(finished, digits_recipe, short_overrides, tmp_path, capfd):
    store = tmp_path / "store"
    shutil.copytree(finished.plan.store.root, store)
    for stage in ("train", "sample", "evaluate"):
        shutil.rmtree(store / stage)
    # Writes 1 and 2 are the checkpoint of step 2 and its checksum; write 3, the checkpoint of step 4, stays half-written.
    run_killed(digits_recipe, store, tmp_path / "runs", "train", 3, short_overrides)
    run(load_recipe(digits_recipe, short_overrides), str(store), device="cpu", runs=tmp_path / "runs")
    assert "resuming from the checkpoint at step 2" in capfd.readouterr().err
