"""Several ranks under a real torchrun: the same bits as one process, killed or failing or not."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rarkit import load_recipe, plan, run
from rarkit.cache.holder import Holder
from rarkit.cache.store import Store
from rarkit.errors import CapabilityError, RecipeError, StoreError
from rarkit.runtime.ranks import ALONE, Ranks
from rarkit.runtime.together import together
from tests.processes import call, call_ranks, end, start_ranks, torchrun
from tests.processes import rarkit as command_line
from tests.rank_threads import threads
from tests.runtime.failing import failing_at_a_chunk

THREE_BLOCKS = ("sample.per_class=60", "sample.batch_size=100")


def files(store):
    """Every file of the samples by its place, but the record, which holds times."""
    roots = list((store / "sample").iterdir())
    assert len(roots) == 1
    paths = (path for path in roots[0].rglob("*") if path.is_file() and path != roots[0] / "zarr.json")
    return {str(path.relative_to(roots[0])): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def alone(small_finished, small_recipe, tmp_path_factory):
    """The samples' files as a single process writes them."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(small_finished.plan.store.root, folder / "store")
    shutil.rmtree(folder / "store/sample")
    run(load_recipe(small_recipe, THREE_BLOCKS), str(folder / "store"), until="sample", device="cpu", runs=folder, quiet=True)
    written = files(folder / "store")
    assert sum(name.startswith("images/c/") for name in written) == 3
    return written


@pytest.fixture
def trained(small_finished, tmp_path):
    """A store with everything but samples."""
    shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/sample")
    return tmp_path / "store"


@pytest.fixture
def arguments(small_recipe, tmp_path):
    """What ``rarkit`` is told."""
    sets = [word for override in THREE_BLOCKS for word in ("--set", override)]
    folders = ["--store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs")]
    return ["run", small_recipe, *sets, *folders, "--device", "cpu"]


def errors(done):
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def resumed_alone(recipe, store):
    again = run(load_recipe(recipe, THREE_BLOCKS), str(store), until="sample", device="cpu", runs=store.parent / "runs", quiet=True)
    assert again.plan["sample"].reason == "goes on after 400 of 600 images"
    assert again.plan["sample"].output.verify() is None
    return files(store)


def test_two_ranks_from_nothing_to_the_report(alone, arguments, tmp_path):
    """The one test that starts torchrun as users do, each rank an interpreter of its own."""
    launcher = ["--standalone", "--nproc-per-node", "2", "-m", "rarkit"]
    done = call(tmp_path, torchrun, {"OMP_NUM_THREADS": "1"}, *launcher, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "store") == alone
    assert done.stdout.count('"recipe": "small"') == 1
    assert done.stderr.count("sample: done") == 1
    assert (tmp_path / "runs/small/report.html").exists()
    assert all(output.verify() is None for output in Store(str(tmp_path / "store")).outputs())


def test_three_ranks_draw_the_same_samples(alone, arguments, trained, tmp_path):
    done = call_ranks(3, tmp_path, command_line, *arguments, "--until", "sample")
    assert done.returncode == 0, done.stderr
    assert files(trained) == alone


def test_all_ranks_wait_for_another_run(alone, arguments, trained, small_recipe, tmp_path):
    output = plan(load_recipe(small_recipe, THREE_BLOCKS), str(trained))["sample"].output
    Path(output.path).mkdir(parents=True)
    lock = Path(output.path, "lock.json")
    lock.write_bytes(replace(Holder.this_process("x"), host="elsewhere").contents())
    (tmp_path / "stderr").touch()
    ranks = start_ranks(2, tmp_path, command_line, *arguments, "--until", "sample")
    while "waiting for process" not in (tmp_path / "stderr").read_text():
        assert ranks.is_alive()
        time.sleep(0.05)
    lock.unlink()
    done = end(tmp_path, ranks)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("waiting for process") == 1
    assert files(trained) == alone


def test_a_killed_rank_stops_the_run_and_one_process_goes_on(alone, small_recipe, arguments, trained, tmp_path):
    # Of three blocks the first rank draws 0 and 2, the second 1.
    done = call_ranks(2, tmp_path, failing_at_a_chunk, "SIGKILL", 1, 1, *arguments, "--until", "sample")
    assert done.returncode > 0
    assert len(errors(done)) == 1, done.stderr
    assert "one of its processes was killed" in errors(done)[0]
    assert not list(trained.rglob("lock.json"))
    assert files(trained) != alone
    assert resumed_alone(small_recipe, trained) == alone


def test_the_first_rank_is_killed_then_another_fails_then_one_process_goes_on(alone, small_recipe, arguments, trained, tmp_path):
    done = call_ranks(2, tmp_path, failing_at_a_chunk, "SIGKILL", 0, 0, *arguments, "--until", "sample")
    assert done.returncode > 0
    assert not errors(done), "the rank that reports errors is gone; torchrun reports that"
    assert list(trained.rglob("lock.json"))
    # The second rank may or may not have written its chunk before it was stopped; now it has to.
    for chunk in trained.rglob("tokens/c/1/0"):
        chunk.unlink()
    again = tmp_path / "again"
    again.mkdir()
    done = call_ranks(2, again, failing_at_a_chunk, "full", 1, 1, *arguments, "--until", "sample")
    assert done.returncode > 0
    assert len(errors(done)) == 1, done.stderr
    assert errors(done)[0].startswith("error: rank 1 on ")
    assert errors(done)[0].endswith(": the disk is full.")
    assert "rarkit/stages" not in done.stderr, "a traceback"
    assert not list(trained.rglob("lock.json"))
    assert resumed_alone(small_recipe, trained) == alone


def test_an_interrupted_process_leaves_whole_chunks_and_no_lock(alone, small_recipe, arguments, trained, tmp_path):
    done = call(tmp_path, failing_at_a_chunk, "SIGINT", 0, 1, *arguments, "--until", "sample")
    assert done.returncode not in (0, -signal.SIGINT)
    assert "Traceback" not in done.stderr
    assert not list(trained.rglob("lock.json"))
    written = files(trained)
    assert {"images/c/0/0/0/0", "images/c/1/0/0/0"} <= set(written), "the current chunk is finished"
    assert "images/c/2/0/0/0" not in written
    assert resumed_alone(small_recipe, trained) == alone


# Ranks as threads, on a store in memory


def test_all_hear_what_the_first_finds_and_meet():
    here, lock = [], threading.Lock()

    def work(ranks):
        heard = [ranks.told(lambda: {"rank": ranks.rank, "blocks": [3, 4]}), ranks.told(lambda: ranks.rank)]
        heard.append(ranks.gathered([ranks.rank]))
        for _ in range(3):
            with lock:
                here.append(ranks.rank)
            ranks.meet()
            with lock:
                heard.append(len(here) >= ranks.size and len(here) % ranks.size == 0)
            ranks.meet()
        return heard

    told = {"rank": 0, "blocks": [3, 4]}, 0
    assert threads(3, work) == [[*told, own, True, True, True] for own in ([[0], [1], [2]], [], [])]


def test_a_rank_that_does_not_see_the_store_says_so(tmp_path):
    from torch.distributed import HashStore

    output = Store(str(tmp_path)).output("train", "f00")
    Ranks(0, 2, HashStore()).check_sees(output.path, output.exists)
    with pytest.raises(StoreError, match=r"does not see what the first rank wrote to .*train/f00\. All ranks need"):
        Ranks(1, 2, HashStore()).check_sees(output.path, output.exists)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    import torch
    from torch.distributed import HashStore

    ranks, chosen = Ranks(3, 4, HashStore()), []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert (ranks.device("cuda"), ranks.device("cpu"), ranks.device("cuda:0")) == ("cuda:1", "cpu", "cuda:0")
    assert chosen == [1]
    assert ALONE.device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(CapabilityError, match=r"more ranks than its 2 GPUs.*--nproc-per-node 2"):
        ranks.device("cuda")


def test_alone_there_is_nobody_to_wait_for():
    with together() as ranks, together() as inner:
        assert ranks is inner is ALONE
        ranks.meet()
        ranks.check()
        assert ranks.told(lambda: {1: (2,)}) == {1: (2,)}
        assert ranks.gathered({"a": 1}) == [{"a": 1}]


def test_a_rehearsal_is_for_one_process(monkeypatch, digits_recipe):
    from torch.distributed import HashStore

    from rarkit.pipeline.run import rehearse
    from rarkit.runtime import together as module

    monkeypatch.setattr(module, "_joined", Ranks(1, 2, HashStore()))
    with pytest.raises(RecipeError, match="Start it without torchrun"):
        rehearse(load_recipe(digits_recipe))
    assert not Path("runs/digits-rehearsal").exists()
