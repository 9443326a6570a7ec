"""``rarkit cache ls`` tells variants apart, and ``gc`` removes what no run needs, and nothing else."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sys
from pathlib import Path

import pytest

from rarkit import load_recipe, plan, run
from rarkit.cache.receipts import receipts
from rarkit.cache.store import Store
from rarkit.errors import StoreError
from rarkit.pipeline.kept_receipts import begin, ended

CODES = "tokenizer.codes=4"


@pytest.fixture
def fit(rarkit, tmp_path, small_recipe):
    """Runs the first stage of a copy of a recipe; returns the output."""
    shutil.copy(small_recipe, tmp_path / "small.toml")

    def _fit(*overrides, recipe="small.toml", runs="runs"):
        done = run(load_recipe(recipe, overrides), "store", until="fit", device="cpu", runs=runs, quiet=True)
        return done.plan["fit"].output

    return _fit


def edit(old, new):
    Path("small.toml").write_text(Path("small.toml").read_text().replace(old, new))


def kept(output):
    return Path(output.path).exists()


def gc(rarkit, *arguments):
    return rarkit("cache", "gc", "--store", "store", *arguments)


def test_variants_are_told_apart(rarkit, fit):
    fit(), fit(CODES), fit("seed=3")
    rows = json.loads(rarkit("cache", "ls", "--store", "store", "--json")[1])
    told = {tuple(row["settings"].values()): row for row in rows}
    assert {tuple(row["settings"]) for row in rows} == {("seed", "tokenizer.codes")}
    assert set(told) == {(0, 5), (0, 4), (3, 5)}
    assert told[0, 5]["runs"] == ["runs/small"]
    assert told[0, 4]["runs"][0].startswith("runs/small-")
    assert told[0, 4]["overrides"] == [f"--set={CODES}"]
    printed = rarkit("cache", "ls", "--store", "store")[1]
    assert "tokenizer.codes 4" in printed
    assert "runs/small" in printed


def test_a_narrow_terminal_breaks_no_word(rarkit, fit, monkeypatch):
    fit(), fit(CODES), fit("seed=3")
    monkeypatch.setenv("COLUMNS", "80")
    lines = rarkit("cache", "ls", "--store", "store")[1].splitlines()
    assert lines[0].split() == ["stage", "fingerprint", "state", "size", "finished"]
    assert len(lines) == 1 + 3 * 3
    assert {line.strip() for line in lines} >= {"needed by runs/small", "differs in seed 0, tokenizer.codes 4"}


def test_a_file_is_no_empty_store(rarkit, tmp_path):
    (tmp_path / "tokens.jsonl").touch()
    code, _, err = rarkit("cache", "ls", "--store", "tokens.jsonl")
    assert (code, "tokens.jsonl is a file, where the folder of a store is needed" in err) == (2, True)


def test_what_no_run_needs_goes(rarkit, fit, tmp_path):
    first, variant = fit(), fit(CODES)
    assert gc(rarkit)[:2] == (0, "Nothing to remove: every output is needed by a run.\n")
    edit("iterations = 3", "iterations = 4")
    second = fit()
    Path("other").mkdir()
    shutil.copy("small.toml", "other")
    elsewhere = fit("seed=9", recipe="other/small.toml", runs="other/runs")
    code, out, err = gc(rarkit)
    assert (code, "nothing was removed: give --yes" in err) == (2, True)
    assert first.fingerprint[:10] in out
    assert all(map(kept, (first, variant, second, elsewhere)))
    code, out, _ = gc(rarkit, "--yes")
    assert (code, f"removed fit/{first.fingerprint}" in out) == (0, True)
    assert [kept(output) for output in (first, variant, second, elsewhere)] == [False, True, True, True]
    assert plan(load_recipe("small.toml"), "store")["fit"].action == "cached"


def test_runs_that_have_begun_count(rarkit, fit):
    Path("runs/small/report.html").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot write results"):
        fit()
    [begun] = receipts(Store("store"))
    assert "-begun-" in begun.name
    assert {stage for stage, _ in begun.outputs} >= {"fit", "train", "evaluate"}
    assert gc(rarkit, "--yes")[1].startswith("Nothing to remove")
    Path("runs/small/report.html").rmdir()
    fit()
    [finished] = receipts(Store("store"))
    assert begun.name.startswith(f"{finished.name}-begun-")


@pytest.mark.parametrize("end", ["finished", "killed"])
def test_each_of_two_runs_into_one_folder_counts_until_it_ends(end, rarkit, fit):
    """The recipe is edited while it runs, and run again: it is the same recipe, with the same folder, and needs other outputs."""
    edit("iterations = 3", "iterations = 5")
    recipe = load_recipe("small.toml")
    begun = begin(plan(recipe, "store"), Path("runs/small"))
    edit("iterations = 5", "iterations = 3")
    other = fit()
    edit("iterations = 3", "iterations = 4")
    fit()
    needed = {output for receipt in receipts(Store("store")) for output in receipt.outputs}
    assert ("fit", plan(recipe, "store")["fit"].fingerprint) in needed
    assert ("fit", other.fingerprint) not in needed
    ended(begun)
    if end == "killed":
        # As if another process had left it that is no more.
        path = Path(f"store/receipts/{begun}.json")
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"process": content["process"] | {"pid": 2**22 + 1}}))
    edit("iterations = 4", "iterations = 6")
    fit()
    assert not [receipt for receipt in receipts(Store("store")) if "-begun-" in receipt.name]


def test_runs_whose_folder_is_gone_count_until_they_are_forgotten(rarkit, fit):
    output, other = fit(), fit(CODES)
    shutil.rmtree("runs/small")
    code, out, err = gc(rarkit, "--yes")
    assert (code, out.startswith("Nothing to remove"), kept(output)) == (0, True, True)
    [receipt] = [receipt for receipt in receipts(Store("store")) if receipt.folder.name == "small"]
    assert f"To let go of it: rarkit cache rm receipts/{receipt.name}" in err
    assert rarkit("cache", "rm", f"receipts/{receipt.name}", "--store", "store")[0] == 2
    assert rarkit("cache", "rm", f"receipts/{receipt.name}", "--store", "store", "--yes")[0] == 0
    assert rarkit("cache", "rm", "receipts/none", "--store", "store", "--yes")[0] == 2
    assert gc(rarkit, "--yes")[0] == 0
    assert (kept(output), kept(other)) == (False, True)
    # Whoever runs the recipe again has its receipt back.
    fit(CODES)
    for receipt in receipts(Store("store")):
        rarkit("cache", "rm", f"receipts/{receipt.name}", "--store", "store", "--yes")
    fit(CODES)
    assert len(receipts(Store("store"))) == 1


def test_containers_with_one_path_and_host_name_keep_their_receipts(rarkit, fit):
    """The folder of runs of the other container is away, as it is in a container; it comes back when that one starts again."""
    first = fit()
    os.rename("runs", "of-the-first")
    edit("iterations = 3", "iterations = 4")
    second = fit()
    assert len({receipt.name for receipt in receipts(Store("store"))}) == 2
    assert gc(rarkit, "--yes")[1].startswith("Nothing to remove")
    assert (kept(first), kept(second)) == (True, True)
    os.rename("runs", "of-the-second")
    os.rename("of-the-first", "runs")
    edit("iterations = 4", "iterations = 5")
    third = fit()
    assert len(receipts(Store("store"))) == 2, "each replaces its own"
    gc(rarkit, "--yes")
    assert (kept(first), kept(second), kept(third)) == (False, True, True)
    # A copy of the folder of runs is another folder, even in the same place.
    os.rename("runs", "original")
    shutil.copytree("original", "runs")
    assert f"The folder {Path('runs/small').absolute()} was copied or made anew since a run, but" in gc(rarkit)[2]
    fit()
    assert len(receipts(Store("store"))) == 3


def test_a_receipt_is_meant_by_its_whole_name(rarkit, fit):
    """Of a run that has begun in the same folder, the name begins likewise."""
    fit()
    folder = Path("store/receipts")
    [finished] = folder.iterdir()
    begun = shutil.copy(finished, folder / f"{finished.stem}-begun-0.json")
    code, _, err = rarkit("cache", "rm", f"receipts/{finished.stem[:10]}", "--store", "store", "--yes")
    assert (code, "has 2 receipts that begin with" in err) == (2, True)
    assert rarkit("cache", "rm", f"receipts/{finished.stem}", "--store", "store", "--yes")[0] == 0
    assert list(folder.iterdir()) == [begun]


@pytest.mark.parametrize("answer", ["y", "n"])
def test_it_asks_at_a_terminal(rarkit, fit, monkeypatch, answer):
    output = fit()
    edit("iterations = 3", "iterations = 4")
    gone = fit()
    shutil.rmtree("runs/small")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n{answer}\n".encode())
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        code, out, _ = gc(rarkit)
    os.close(ours)
    assert code == 0
    assert "Forget the run" in out
    assert (kept(output), kept(gone)) == (answer == "n", answer == "n")


def test_what_is_being_written_stays(rarkit, fit):
    output = fit()
    edit("iterations = 3", "iterations = 4")
    fit()
    with output.writing({}):
        code, out, _ = gc(rarkit, "--yes")
        assert (code, f"kept fit/{output.fingerprint}: " in out, "being written" in out) == (0, True, True)
        code, out, _ = rarkit("cache", "rm", "fit", "--store", "store", "--yes")
        assert (code, out.count("removed fit/"), f"kept fit/{output.fingerprint}: " in out) == (1, 1, True)
    assert kept(output)
    gc(rarkit, "--yes")
    assert not kept(output)


def test_what_a_running_stage_reads_stays(rarkit, fit):
    """Also where no receipt needs it any more."""
    output = fit()
    edit("iterations = 3", "iterations = 4")
    fit()
    upstream = {"fit": output.fingerprint}
    with Store("store").output("tokenize", "f00d").writing({"upstream": upstream}):
        code, out, _ = gc(rarkit, "--yes")
        assert (code, f"kept fit/{output.fingerprint}: it is being read by process {os.getpid()}" in out) == (0, True)
        code, out, _ = rarkit("cache", "rm", f"fit/{output.fingerprint}", "--store", "store", "--yes")
        assert (code, "in stage 'tokenize'" in out) == (1, True)
        assert rarkit("cache", "verify", f"fit/{output.fingerprint}", "--store", "store")[1].strip().endswith(": intact")
    assert kept(output)
    gc(rarkit, "--yes")
    assert not kept(output)


def test_what_is_being_written_is_not_damaged(rarkit, fit):
    output = fit()

    def states():
        code, out, _ = rarkit("cache", "verify", "--store", "store", "--json")
        [listed] = json.loads(rarkit("cache", "ls", "--store", "store", "--json")[1])
        [row] = json.loads(out)
        return code, row["state"], listed["state"]

    assert states() == (0, "intact", "complete")
    with output.writing({"identity": output.record().identity}, afresh=True):
        assert states() == (0, "in progress", "in progress")
        assert "in progress: process" in rarkit("cache", "verify", "--store", "store")[1]
    assert states() == (0, "unfinished", "unfinished")
    with output.writing({}):
        output.write_file("a", b"a")
        output.finish(["a"])
    Path(output.path, "files/a").write_bytes(b"b")
    assert states() == (1, "damaged", "complete")


def test_what_an_older_rarkit_made_and_what_is_unknown_stays(rarkit, fit):
    fit()
    with (old := Store("store").output("fit", "cafe")).writing({"identity": {}, "recipe_name": "old"}):
        old.finish()
    assert gc(rarkit, "--yes")[1].startswith("Nothing to remove")
    edit("iterations = 3", "iterations = 4")
    Path("store/receipts/damaged.json").write_text("{")
    code, _, err = gc(rarkit, "--yes")
    assert (code, "damaged.json is damaged" in err, "Traceback" in err) == (2, True, False)
    assert plan(load_recipe("small.toml"), "store")["fit"].reason == "settings changed: tokenizer.iterations: 3 → 4"
    assert rarkit("cache", "ls", "--store", "store")[0] == 0


def test_names_of_stores_are_no_patterns(rarkit, fit, tmp_path):
    output = fit()
    for name in ("store[1]", "stor*"):
        shutil.copytree(tmp_path / "store", tmp_path / name)
    assert kept(output)
    shutil.rmtree(tmp_path / "stor*" / "receipts")
    assert "fit" in rarkit("cache", "ls", "--store", "store[1]")[1]
    assert [receipt.name for receipt in receipts(Store("store[1]"))] == [receipt.name for receipt in receipts(Store("store"))]
    assert receipts(Store("stor*")) == []
    assert len(receipts(Store("store"))) == 1
