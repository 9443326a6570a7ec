"""Stages that ranks share, under torchrun's own agent: the same bits whatever the number of ranks, and after a kill."""

from __future__ import annotations

import re
import shutil

import pytest

from rarkit import load_recipe, plan, run
from tests.processes import call, call_ranks
from tests.processes import rarkit as command_line
from tests.runtime.failing import disagreeing, failing_in

BLOCKS = ("evaluate.batch_size=100",)
"""Three blocks of real images, and two of each yardstick."""


def files(store, stage):
    """Every file of the stage's output by its place, but the record, which holds times."""
    [root] = (store / stage).iterdir()
    paths = (path for path in root.rglob("*") if path.is_file() and path != root / "zarr.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def alone(small_finished, small_recipe, tmp_path_factory):
    """The store that a single process makes."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(small_finished.plan.store.root, folder / "store")
    for stage in ("reference", "evaluate"):
        shutil.rmtree(folder / "store" / stage)
    run(load_recipe(small_recipe, BLOCKS), str(folder / "store"), until="reference", device="cpu", runs=folder, quiet=True)
    written = files(folder / "store", "reference")
    assert sum(name.startswith("real_features/c/") for name in written) == 3
    assert sum(name.startswith("train_tokens/c/") for name in files(folder / "store", "tokenize")) == 3
    return folder / "store"


@pytest.fixture
def store(alone, tmp_path):
    """A copy of that store."""
    shutil.copytree(alone, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def arguments(small_recipe, tmp_path):
    """What ``rarkit`` is told."""
    sets = [word for override in BLOCKS for word in ("--set", override)]
    folders = ["--store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs")]
    return ["run", small_recipe, *sets, *folders, "--device", "cpu", "--until"]


def goes_on(recipe, store, stage):
    return plan(load_recipe(recipe, BLOCKS), str(store))[stage].reason


@pytest.mark.parametrize("count", [2, 3])
def test_several_ranks_give_the_bits_of_one_and_say_what_one_does_alone(count, alone, store, arguments, tmp_path):
    for stage in ("fit", "tokenize", "reference"):
        shutil.rmtree(store / stage)
    done = call_ranks(count, tmp_path, command_line, *arguments, "reference")
    assert done.returncode == 0, done.stderr
    for stage in ("fit", "tokenize", "reference"):
        assert files(store, stage) == files(alone, stage)
        assert done.stderr.count(f"{stage}: done") == 1
    others = "1 other waits" if count == 2 else "2 others wait"
    for alone_in in ("fit: training tokenizer 'patch_kmeans'", "reference: training feature extractor 'classifier'"):
        assert " ".join(done.stderr.split()).count(f"{alone_in}: the first rank alone; {others}") == 1


@pytest.mark.parametrize("stage", ["tokenize", "reference"])
def test_a_rank_is_killed_and_another_number_of_ranks_goes_on(stage, alone, store, arguments, tmp_path):
    for later in ("tokenize", "train", "sample", "reference") if stage == "tokenize" else ("reference",):
        shutil.rmtree(store / later)
    done = call_ranks(2, tmp_path, failing_in, stage, "SIGKILL", 1, 1, *arguments, stage)
    assert done.returncode > 0
    assert "one of its processes was killed" in done.stderr
    assert not list(store.rglob("lock.json"))
    # The second rank, whose share that is, wrote nothing.
    assert not [name for name in files(store, stage) if re.match(r"(train_tokens|real_features)/c/1/", name)]
    again = tmp_path / "again"
    again.mkdir()
    done = call_ranks(3, again, command_line, *arguments, stage)
    assert done.returncode == 0, done.stderr
    assert files(store, stage) == files(alone, stage)


def test_one_process_goes_on_where_ranks_left_off(alone, store, small_recipe, arguments, tmp_path):
    """What the extractor learned is not learned again."""
    shutil.rmtree(store / "reference")
    done = call(tmp_path, failing_in, "reference", "SIGKILL", 0, 20, *arguments, "reference")
    assert done.returncode < 0
    assert goes_on(small_recipe, store, "reference").startswith("goes on after real 600 of 600 images")
    again = tmp_path / "again"
    again.mkdir()
    done = call_ranks(2, again, command_line, *arguments, "reference")
    assert done.returncode == 0, done.stderr
    assert "training feature extractor" not in done.stderr
    assert files(store, "reference") == files(alone, "reference")


def test_ranks_with_another_version_are_refused(store, arguments, tmp_path):
    shutil.rmtree(store / "reference")
    done = call_ranks(2, tmp_path, disagreeing, "1.0.0", *arguments, "reference")
    assert done.returncode > 0
    assert "error: rank 1 on " in done.stderr
    assert "the version of a package differs from that of the first rank: torch: " in done.stderr
    assert not (store / "reference").exists()
