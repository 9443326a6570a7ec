"""One of two processes that train together dies, or is stopped alone: all end, with the reason, and the next run completes."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from rarkit import load_recipe, plan
from rarkit.stages.train import training_log
from tests.engine.stops import WHOLE, stopped_at
from tests.processes import call_ranks
from tests.processes import rarkit as command_line

WAYS = {"ddp": [], "fsdp": ["--set", "train.data_parallel=fsdp"]}


@pytest.fixture
def store(small_finished, tmp_path):
    """A store that training comes next in."""
    shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    for stage in ("train", "sample", "evaluate"):
        shutil.rmtree(tmp_path / "store" / stage)
    return tmp_path / "store"


@pytest.fixture
def train(small_recipe, store, tmp_path):
    """Trains in two processes, one of which is stopped at a point."""

    def trained(way, *point):
        folder = tmp_path / str(time.monotonic_ns())
        folder.mkdir()
        arguments = ["run", small_recipe, *WAYS[way], "--until", "train", "--store", store, "--runs", folder, "--device", "cpu"]
        work = [stopped_at, *point] if point else [command_line]
        return call_ranks(2, folder, *work, *arguments)

    return trained


def errors(done):
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def check_log(small_finished, recipe, store):
    """The training log is that of one process."""
    output = plan(load_recipe(recipe), str(store))["train"].output
    assert output.defect() is None
    log, alone = training_log(output), training_log(small_finished.plan["train"].output)
    assert log.keys() == alone.keys()
    for name, values in alone.items():
        np.testing.assert_allclose(log[name], values, rtol=1e-5 if name == "loss" else 1e-3, err_msg=name)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("way", WAYS)
def test_killed_in_a_step(way, rank, train, store, small_recipe, small_finished):
    done = train(way, "SIGKILL", rank, 3, None)
    print(done.stderr)
    assert 0
