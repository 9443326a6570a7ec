"""What the processes of a training, and this machine, cannot do is refused before anything runs, with the cure."""

from __future__ import annotations

import pytest

from rarkit import load_recipe, plan
from rarkit.errors import CapabilityError
from rarkit.pipeline.preflight import check_ready, part_obstacles, usable_backends
from rarkit.recipe.rehearsal import rehearsal
from tests.processes import call_ranks
from tests.processes import rarkit as command_line

REFUSED = [
    (3, [], r"train\.batch_size \d+ cannot be shared evenly by 3 processes"),
    (2, ["train.batch_size=12", "train.micro_batch_size=4"], r"train\.micro_batch_size 4 does not divide the 6 images"),
    (2, ["train.data_parallel=fsdp", "train.shard=4"], r"train\.shard 4 cannot be had with 2 processes"),
]


@pytest.mark.parametrize(("processes", "changes", "message"), REFUSED, ids=["batch", "passes", "shards"])
def test_what_the_processes_cannot_share_is_refused(small_recipe, tmp_path, processes, changes, message):
    planned = plan(load_recipe(small_recipe, changes), str(tmp_path / "store"))
    with pytest.raises(CapabilityError, match=message):
        check_ready(planned, "cpu", processes)
    assert not (tmp_path / "store").exists()


def test_what_is_trained_already_is_shared_by_any_number(small_recipe, small_finished):
    """Sampling goes on under three processes, whose share of the batch would not be whole."""
    planned = plan(load_recipe(small_recipe), small_finished.plan.store, force=("sample",))
    assert (planned["train"].action, planned["sample"].action) == ("cached", "run")
    check_ready(planned, "cpu", 3)


@pytest.mark.parametrize(("device", "flex"), [("cpu", "no backward pass on cpu"), ("cuda", None)])
def test_backends_are_asked_for_the_device(small_recipe, device, flex, monkeypatch):
    monkeypatch.setattr("rarkit.pipeline.preflight.auto_precision", lambda device: "bfloat16")
    usable = usable_backends(load_recipe(small_recipe, ["model.attention_dropout=0"]), device)
    assert usable["sdpa"] is None
    assert usable["flex"] is None if flex is None else flex in usable["flex"]


def test_under_torchrun_nothing_runs(small_recipe, tmp_path):
    arguments = ["run", small_recipe, "--store", tmp_path / "store", "--runs", tmp_path / "runs", "--device", "cpu"]
    refused = call_ranks(2, tmp_path, command_line, *arguments, "--set", "train.batch_size=7")
    assert refused.returncode != 0
    message = "train.batch_size 7 cannot be shared evenly by 2 processes. Start 1 process, or set train.batch_size to 6 or 8."
    assert refused.stderr.count(message) == 1
    assert not (tmp_path / "runs").exists()


def test_one_process_rehearses_what_several_train(digits_recipe):
    recipe = load_recipe(digits_recipe, ["train.data_parallel=fsdp", "train.shard=4", "train.replicate=2"])
    assert "train" in part_obstacles(recipe, "cpu")
    assert part_obstacles(rehearsal(recipe, "cpu"), "cpu") == {}
