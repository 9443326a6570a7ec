"""Several ranks under a real torchrun: the same bits as one process, killed or failing or not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rarkit import load_recipe, run
from rarkit.cache.store import Store
from rarkit.errors import CapabilityError, RankError, RecipeError, StoreError
from rarkit.runtime.ranks import ALONE, Ranks, together

THREE_BLOCKS = ("sample.per_class=60", "sample.batch_size=100")
# Runs rarkit, but a rank that is about to write a certain block of samples is killed, interrupted, or finds the disk full.
SPOILED = """
import os, signal, sys
from rarkit.cache.output import StageOutput
from rarkit.cli import main
from rarkit.errors import StoreError

how, rank, at = sys.argv[1:4]
plain = StageOutput.write_block

def write_block(self, block, **rows):
    if self.stage == "sample" and (os.environ.get("RANK", "0"), block) == (rank, int(at)):
        if how == "full":
            raise StoreError("the disk is full")
        name, values = next(iter(rows.items()))
        plain(self, block, **{name: values})
        os.kill(os.getpid(), getattr(signal, how))
    plain(self, block, **rows)

StageOutput.write_block = write_block
if __name__ == "__main__":
    # A shell that runs the tests in the background has it ignored, and so has what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = sys.argv[4:]
    main()
"""


def files(store):
    """Every file of the samples by its place, but the record, which holds times."""
    roots = list((store / "sample").iterdir())
    assert len(roots) == 1
    found = (path for path in roots[0].rglob("*") if path.is_file() and path != roots[0] / "zarr.json")
    return {str(path.relative_to(roots[0])): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def overrides(short_overrides):
    return (*short_overrides, *THREE_BLOCKS)


@pytest.fixture(scope="module")
def alone(finished, digits_recipe, overrides, tmp_path_factory):
    """The samples' files as one process writes them."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(finished.plan.store.root, folder / "store")
    shutil.rmtree(folder / "store/sample")
    run(load_recipe(digits_recipe, overrides), str(folder / "store"), until="sample", device="cpu", runs=folder, quiet=True)
    found = files(folder / "store")
    assert sum(name.startswith("images/c/") for name in found) == 3
    return found


@pytest.fixture
def trained(finished, tmp_path):
    """A store with everything but samples."""
    shutil.copytree(finished.plan.store.root, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/sample")
    return tmp_path / "store"


def ranked(ranks, *arguments):
    """Runs Python's arguments under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def command(recipe, store, overrides, *more):
    sets = [word for override in overrides for word in ("--set", override)]
    return ["run", recipe, *sets, "--store", store, "--runs", store.parent / "runs", "--device", "cpu", *more]


def spoiled(tmp_path, ranks, how, rank, block, arguments):
    script = tmp_path / "spoiled.py"
    script.write_text(SPOILED)
    return ranked(ranks, script, how, rank, block, *arguments)


def errors(done):
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def goes_on_alone(recipe, overrides, store):
    again = run(load_recipe(recipe, overrides), str(store), until="sample", device="cpu", runs=store.parent / "runs", quiet=True)
    assert again.plan["sample"].reason == "resumes an interrupted run"
    assert again.plan["sample"].output.verify() is None
    return files(store)


def test_two_ranks_from_nothing_to_the_report(alone, digits_recipe, overrides, tmp_path):
    store = tmp_path / "store"
    done = ranked(2, "-m", "rarkit", *command(digits_recipe, store, overrides, "--json"))
    assert done.returncode == 0, done.stderr
    assert files(store) == alone
    assert done.stdout.count('"recipe": "digits"') == 1
    assert done.stderr.count("sample: done") == 1
    assert (tmp_path / "runs/digits/report.html").exists()
    assert all(output.record()["complete"] for output in Store(str(store)).outputs())


def test_three_ranks_draw_the_same_samples(alone, digits_recipe, overrides, trained):
    done = ranked(3, "-m", "rarkit", *command(digits_recipe, trained, overrides, "--until", "sample"))
    assert done.returncode == 0, done.stderr
    assert files(trained) == alone


def test_a_killed_rank_stops_the_run_and_one_process_goes_on(alone, digits_recipe, overrides, trained, tmp_path):
    # Of three blocks the first rank draws 0 and 2, the second 1.
    done = spoiled(tmp_path, 2, "SIGKILL", 1, 1, command(digits_recipe, trained, overrides, "--until", "sample"))
    assert done.returncode > 0
    assert len(errors(done)) == 1, done.stderr
    assert "one of its processes was killed" in errors(done)[0]
    assert not list(trained.rglob("lock.json"))
    assert files(trained) != alone
    assert goes_on_alone(digits_recipe, overrides, trained) == alone


def test_the_first_rank_is_killed_then_another_fails_then_one_process_goes_on(alone, digits_recipe, overrides, trained, tmp_path):
    arguments = command(digits_recipe, trained, overrides, "--until", "sample")
    done = spoiled(tmp_path, 2, "SIGKILL", 0, 0, arguments)
    assert done.returncode > 0
    assert not errors(done), "the only one who speaks is gone; torchrun says how"
    assert list(trained.rglob("lock.json"))
    # Whether the second rank came to write its block before it was stopped is not known; now it has to.
    for chunk in trained.rglob("tokens/c/1/0"):
        chunk.unlink()
    done = spoiled(tmp_path, 2, "full", 1, 1, arguments)
    assert done.returncode > 0
    assert len(errors(done)) == 1, done.stderr
    assert errors(done)[0].startswith("error: rank 1 on ")
    assert errors(done)[0].endswith(": the disk is full")
    assert "rarkit/stages" not in done.stderr, "a traceback"
    assert not list(trained.rglob("lock.json"))
    assert goes_on_alone(digits_recipe, overrides, trained) == alone


def test_an_interrupted_process_leaves_whole_blocks_and_no_lock(alone, digits_recipe, overrides, trained, tmp_path):
    script = tmp_path / "spoiled.py"
    script.write_text(SPOILED)
    arguments = command(digits_recipe, trained, overrides, "--until", "sample")
    done = subprocess.run(
        [sys.executable, script, "SIGINT", "0", "1", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode not in (0, -signal.SIGINT)
    assert "Traceback" not in done.stderr
    assert not list(trained.rglob("lock.json"))
    found = files(trained)
    assert {"images/c/0/0/0/0", "images/c/1/0/0/0"} <= set(found), "the block in hand is finished"
    assert "images/c/2/0/0/0" not in found
    assert goes_on_alone(digits_recipe, overrides, trained) == alone


# Ranks as threads, on a store in memory


def threads(size, work):
    """What ``work`` of each rank returned or raised."""
    from torch.distributed import HashStore

    store, found = HashStore(), {}

    def one(rank):
        try:
            found[rank] = work(Ranks(rank, size, store))
        except RankError as error:
            found[rank] = error
        except StoreError as error:
            found[rank] = error

    running = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(20)
        assert not thread.is_alive()
    return [found[rank] for rank in range(size)]


def test_all_hear_what_the_first_finds_and_meet():
    here, lock = [], threading.Lock()

    def work(ranks):
        heard = [ranks.told(lambda: {"rank": ranks.rank, "blocks": [3, 4]}), ranks.told(lambda: ranks.rank)]
        for _ in range(3):
            with lock:
                here.append(ranks.rank)
            ranks.meet()
            with lock:
                heard.append(len(here) >= ranks.size and len(here) % ranks.size == 0)
            ranks.meet()
        return heard

    assert threads(3, work) == [[{"rank": 0, "blocks": [3, 4]}, 0, True, True, True]] * 3


def test_ranks_that_do_not_agree_stop():
    def work(ranks):
        try:
            ranks.agree("the plan", ["run" if ranks.rank < 2 else "cached"])
        except BaseException as error:
            raise ranks.failing(error) from None

    first, second, third = threads(3, work)
    assert isinstance(first, RankError)
    assert not first.told
    assert str(first).startswith("rank 2 on ")
    assert 'the plan differs from that of the first rank: ["cached"]. All ranks need the same store' in str(first)
    assert second.told
    assert third.told


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
        ranks.agree("the plan", [1])
        assert ranks.told(lambda: {1: (2,)}) == {1: (2,)}


def test_a_rehearsal_is_for_one_process(monkeypatch, digits_recipe):
    from torch.distributed import HashStore

    from rarkit.pipeline.run import rehearse
    from rarkit.runtime import ranks as module

    monkeypatch.setattr(module, "_joined", Ranks(1, 2, HashStore()))
    with pytest.raises(RecipeError, match="Start it without torchrun"):
        rehearse(load_recipe(digits_recipe))
    assert not Path("runs/digits-rehearsal").exists()
