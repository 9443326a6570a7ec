"""A run that needs what another one is making waits for it, unless it is told not to."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rarkit import load_recipe, plan, run
from rarkit.cache.holder import Holder
from rarkit.cache.lock import Times
from rarkit.cache.output_lock import OutputLock
from rarkit.errors import IncompleteError, LockedError
from rarkit.pipeline.execution import MEANWHILE, execute
from rarkit.pipeline.run import carry_out
from rarkit.runtime.progress import Reporter
from tests.processes import call
from tests.processes import rarkit as command_line


@pytest.fixture
def store(small_finished, tmp_path):
    """A store with everything but samples and what reads them."""
    shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    for stage in ("sample", "evaluate"):
        shutil.rmtree(tmp_path / "store" / stage)
    return tmp_path / "store"


@pytest.fixture
def recipe(small_recipe):
    return load_recipe(small_recipe)


def about(planned, stage):
    """What the record of a stage's output says of what it is made from."""
    return {"identity": planned[stage].identity, "upstream": planned[stage].upstream}


class Started:
    """Work in a thread."""

    def __init__(self, work):
        self.results = []
        self.thread = threading.Thread(target=lambda: self.results.append(work()))
        self.thread.start()

    def result(self):
        self.thread.join()
        [result] = self.results
        return result

    def until_it_says(self, capfd, text):
        said = ""
        while text not in said:
            assert self.thread.is_alive(), said
            said += capfd.readouterr().err
            time.sleep(0.02)
        return said


def test_what_another_run_makes_is_waited_for_and_used(store, recipe, small_finished, tmp_path, capfd):
    planned = plan(recipe, str(store))
    done, other = small_finished.plan["sample"].output, planned["sample"].output
    with other.writing(about(planned, "sample")):
        started = Started(lambda: run(recipe, str(store), device="cpu", runs=tmp_path / "runs"))
        assert "stage 'sample'" in started.until_it_says(capfd, "waiting for process")
        shutil.copytree(done.path, other.path, dirs_exist_ok=True)
    finished = started.result()
    assert {result.name: result.action for result in finished.results if result.action == "ran"} == {"evaluate": "ran"}
    [sampled] = [result for result in finished.results if result.name == "sample"]
    assert (sampled.action, sampled.reason) == ("cached", MEANWHILE)
    assert not finished.did_nothing
    assert finished.metrics


def test_what_nobody_makes_any_more_is_made_here(store, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.02, free=0.3))
    output = plan(recipe, str(store))["sample"].output
    Path(output.path).mkdir(parents=True)
    elsewhere = replace(Holder.this_process("x"), host="elsewhere")
    Path(output.path, "lock.json").write_bytes(elsewhere.contents())
    finished = run(recipe, str(store), until="sample", device="cpu", runs=tmp_path / "runs", quiet=True)
    assert {result.name: result.action for result in finished.results}["sample"] == "ran"


def test_inputs_that_another_run_makes_again_are_waited_for(store, recipe, tmp_path, capfd):
    planned, fit = plan(recipe, str(store)), plan(recipe, str(store))["fit"].output
    before = tmp_path / "fit"
    shutil.copytree(fit.path, before)
    with fit.writing(about(planned, "fit"), afresh=True):
        with pytest.raises(IncompleteError, match="is being written by process"):
            plan(recipe, str(store))["fit"].output.require_complete()
        # Its plan was made before.
        started = Started(lambda: carry_out(planned, device="cpu", runs=tmp_path / "runs"))
        assert "stage 'fit'" in started.until_it_says(capfd, "waiting for process")
        shutil.copytree(before, fit.path, dirs_exist_ok=True)
    assert started.result().metrics


def test_without_waiting_it_is_an_error(store, recipe, small_recipe, tmp_path):
    planned = plan(recipe, str(store))
    output = planned["sample"].output
    with output.writing(about(planned, "sample")):
        with pytest.raises(LockedError, match=r"stage 'sample' .* is being written by process"):
            run(recipe, str(store), device="cpu", runs=tmp_path / "runs", quiet=True, wait=False)
        arguments = ["run", small_recipe, "--store", store, "--runs", tmp_path / "runs", "--device", "cpu", "--no-wait"]
        refused = call(tmp_path, command_line, *arguments)
    assert refused.returncode == 2
    assert [line for line in refused.stderr.splitlines() if line.startswith("error: stage 'sample'")]
    assert "Traceback" not in refused.stderr


def test_what_another_run_reads_is_made_anew_afterwards(store, recipe, tmp_path, capfd):
    planned = plan(recipe, str(store))
    again = {"force": ["fit"], "until": "fit", "device": "cpu", "runs": tmp_path / "runs"}
    with planned["sample"].output.writing(about(planned, "sample")):
        with pytest.raises(
            LockedError, match=r"stage 'fit' .* is being read by process .*, in stage 'sample', .* leave out --no-wait"
        ):
            run(recipe, str(store), **again, wait=False)
        started = Started(lambda: run(recipe, str(store), **again))
        assert "which is reading it" in started.until_it_says(capfd, "stage 'fit'")
        assert plan(recipe, str(store))["fit"].output.is_complete
    assert [result.action for result in started.result().results] == ["ran"]


def test_tokens_named_by_their_address_are_kept_while_they_are_read(store, recipe, small_recipe):
    tokens = plan(recipe, str(store))["tokenize"].output
    planned = plan(load_recipe(small_recipe, [f"train.tokens={tokens.path}"]), str(store), until="train")
    refused = []

    def remove(stage, record):
        with pytest.raises(LockedError, match=r"being read by process .*, in stage 'train'"):
            planned.store.remove(tokens)
        refused.append(stage)

    execute(planned, "cpu", Reporter(quiet=True), remove)
    assert set(refused) == {"train"}
    planned.store.remove(tokens)


def test_a_plan_says_that_it_is_in_progress(store, recipe):
    planned = plan(recipe, str(store))
    output = planned["sample"].output
    with output.writing(about(planned, "sample")):
        planned = plan(recipe, str(store))
        assert planned["sample"].action == "run"
        assert planned["sample"].reason.startswith("in progress: process ")
        output.write_array("a", np.zeros(3, np.uint8))
        output.finish()
    Path(output.path, "a/c/0").unlink()
    assert plan(recipe, str(store))["sample"].action == "damaged"
    with output.writing({}):
        # It is being made again.
        planned = plan(recipe, str(store))["sample"]
        assert (planned.action, planned.reason.split(":")[0]) == ("run", "in progress")
    assert json.loads(Path(output.path, "zarr.json").read_text())["attributes"]["rarkit"]["complete"]
