"""Plans list what runs and why; a run writes images and numbers; running it again does nothing."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rarkit import load_recipe, plan, run
from rarkit.cache.store import Store
from rarkit.errors import CapabilityError, IncompleteError, RecipeError
from rarkit.pipeline.plan import STAGE_NAMES
from rarkit.pipeline.preflight import check_ready
from rarkit.pipeline.run import carry_out
from rarkit.rendering.numbers import duration
from rarkit.runtime.machine import machine_description


@pytest.fixture
def store(finished, tmp_path):
    """A copy of the finished run's store, to modify."""
    shutil.copytree(finished.plan.store.root, tmp_path / "store")
    return str(tmp_path / "store")


@pytest.fixture
def load(digits_recipe, short_overrides):
    return lambda *overrides: load_recipe(digits_recipe, [*short_overrides, *overrides])


def actions(planned):
    return {stage.name: stage.action for stage in planned.stages}


RERUN_AFTER = {
    "sample.temperature=0.77": {"sample", "evaluate"},
    "sample.guidance.scale=2.77": {"sample", "evaluate"},
    "scan_order.name=spiral": {"train", "sample", "evaluate"},
    "permutation_schedule.name=cosine": {"train", "sample", "evaluate"},
    "attention.name=plain": {"train", "sample", "evaluate"},
    "train.steps=7": {"train", "sample", "evaluate"},
    "model.depth=2": {"train", "sample", "evaluate"},
    "evaluate.bootstrap=3": {"evaluate"},
    "evaluate.features.width=8": {"reference", "evaluate"},
    "tokenizer.codes=17": set(STAGE_NAMES),
    "dataset.test_fraction=0.3": set(STAGE_NAMES),
    "seed=5": {"fit", "tokenize", "train", "sample", "reference", "evaluate"},
    "sample.batch_size=7": set(),
    "train.checkpoint_every=3": set(),
    "title=another": set(),
}


@pytest.mark.parametrize(("override", "rerun"), RERUN_AFTER.items())
def test_a_change_reruns_what_depends_on_it(load, store, override, rerun):
    planned = plan(load(override), store)
    assert {name for name, action in actions(planned).items() if action == "run"} == rerun
    for stage in planned.stages:
        if stage.action == "run":
            assert stage.reason.startswith(("settings changed: ", "upstream changed: ")), stage.reason
    key = override.partition("=")[0].rpartition(".")[2]
    assert not rerun or any(key in stage.reason for stage in planned.stages)


def test_an_empty_store_runs_everything_in_order(load, tmp_path):
    planned = plan(load(), str(tmp_path / "new"))
    assert list(actions(planned).items()) == [(name, "run") for name in STAGE_NAMES]
    assert {stage.reason for stage in planned.stages} == {"not in the store yet"}
    assert not (tmp_path / "new").exists()


def test_from_until_and_force_do_what_they_say(load, store):
    assert actions(plan(load(), store, start="sample")) == {
        **dict.fromkeys(["fit", "tokenize", "train"], "cached"),
        **dict.fromkeys(["sample", "reference", "evaluate"], "run"),
    }
    until = actions(plan(load("tokenizer.codes=17"), store, until="train"))
    assert [name for name, action in until.items() if action == "run"] == ["fit", "tokenize", "train"]
    assert until["evaluate"] == "left out"
    forced = actions(plan(load(), store, force=("train",)))
    assert [name for name, action in forced.items() if action == "run"] == ["train"]
    with pytest.raises(RecipeError, match=r"--force nonsense: this recipe has no such stage\. It has: fit, tokenize"):
        plan(load(), store, force=("nonsense",))
    with pytest.raises(RecipeError, match=r"--from train comes after --until fit, so nothing would run"):
        plan(load(), store, start="train", until="fit")
    with pytest.raises(RecipeError, match=r"the plan has no stage 'trian'; did you mean 'train'\? It has: fit, tokenize, train"):
        plan(load(), store)["trian"]
    with pytest.raises(RecipeError, match="--from sample needs stage 'train', which is not in the store"):
        plan(load("train.steps=9"), store, start="sample")


def test_what_nobody_needs_is_not_made_again(load, store):
    before = plan(load(), store)
    before["tokenize"].output.remove()
    before["train"].output.remove()
    again = plan(load(), store)
    assert actions(again)["tokenize"] == actions(again)["train"] == "not needed"
    assert again.nothing_to_do


def test_a_run_leaves_what_people_look_at(finished):
    files = {path.name for path in finished.folder.iterdir()}
    assert files == {"samples.png", "report.html", "metrics.json", "receipt.json", "log.jsonl"}
    assert Image.open(finished.folder / "samples.png").size[0] > 400
    log = [json.loads(line) for line in (finished.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(6))
    assert log[0]["random_ratio"] == 1
    assert log[-1]["random_ratio"] == 0
    receipt = json.loads((finished.folder / "receipt.json").read_text())
    assert [stage["name"] for stage in receipt["stages"]] == list(STAGE_NAMES)
    assert receipt["versions"]["torch"]
    names = {metric["name"] for metric in json.loads((finished.folder / "metrics.json").read_text())["metrics"]}
    assert {"frechet_distance", "class_agreement", "diversity", "bits_per_token", "precision", "recall"} <= names
    assert not any("fid" in name for name in names)
    for metric in finished.metrics:
        if metric.name in ("frechet_distance", "class_agreement", "diversity"):
            assert metric.yardsticks.keys() == {"real test images", "reconstructions", "uniform tokens"}
    page = (finished.folder / "report.html").read_text()
    for word in ("Samples", "Reconstructions", "Loss", "Random ratio", "Guidance", "Scan order", "How to reproduce it"):
        assert word in page


def test_samples_lie_in_the_store_with_their_labels(finished):
    samples = finished.plan["sample"].output
    labels, images = samples.read_array("labels"), samples.read_array("images")
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 30))
    assert images.shape == (300, 8, 8, 1)


def test_how_a_class_is_named_is_not_in_the_fingerprint(load, store):
    planned = [plan(load(f"sample.classes={classes}"), store)["sample"] for classes in ("[7, 2]", '["7", "name:2"]', "[2, 7]")]
    assert planned[0].fingerprint == planned[1].fingerprint != planned[2].fingerprint


def test_a_number_with_two_meanings_is_refused_in_a_recipe(load, store):
    names = "dataset={name = 'generated', height = 8, width = 8, channels = 1, class_names = ['10', '11', '12', '2']}"
    with pytest.raises(RecipeError, match=r"sample\.classes.*class 2 has two meanings: label 2 is class '12'.*'2' has label 3"):
        plan(load(names, "sample.classes=[2]"), store)
    planned = plan(load(names, 'sample.classes=["name:2", "label:2", 10]'), store)
    assert planned["sample"].view.classes == (3, 2, 0)


def test_samples_of_some_classes_are_drawn_as_asked(load, store, tmp_path):
    recipe = load("sample.classes=[7, 2]", "sample.per_class=3")
    done = run(recipe, store, device="cpu", until="sample", runs=tmp_path / "runs", quiet=True)
    assert done.plan["sample"].output.read_array("labels").tolist() == [7, 7, 7, 2, 2, 2]
    for wrong, message in [
        ("[10]", "dataset 'digits': there is no class 10: classes are 0 to 9"),
        ("[1, 1]", "lists a class twice"),
        ('[1, "label:1"]', "class 'label:1' is named twice"),
        ("[-1]", "there is no class -1"),
        ("[1.5]", r"sample\.classes\.0: found 1\.5; a class is given by its label"),
        ('["ten"]', "no class is called 'ten'"),
    ]:
        with pytest.raises(RecipeError, match=message):
            plan(load(f"sample.classes={wrong}"), store)


def test_the_second_run_does_nothing(load, store, finished):
    written = [{path: path.stat().st_mtime_ns for path in Path(root).rglob("*")} for root in (store, finished.folder)]
    again = run(load(), store, runs=finished.folder.parent, quiet=True)
    assert again.did_nothing
    assert [{path: path.stat().st_mtime_ns for path in Path(root).rglob("*")} for root in (store, finished.folder)] == written
    assert again.metrics == finished.metrics


def test_results_that_were_removed_come_back_without_running_anything(load, store, tmp_path, finished):
    again = run(load(), store, runs=tmp_path / "elsewhere", quiet=True)
    assert again.did_nothing
    for name in ("samples.png", "metrics.json", "log.jsonl"):
        assert (again.folder / name).read_bytes() == (finished.folder / name).read_bytes()
    first, second = ((folder / "report.html").read_text() for folder in (finished.folder, again.folder))
    stamp = re.compile(r"(?<=digits · )\d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert len(stamp.findall(first)) == 1
    assert stamp.sub("", second) == stamp.sub("", first)


def test_cached_stages_keep_the_times_of_the_run_that_made_them(load, store, tmp_path, finished):
    again = run(load("sample.temperature=0.7"), store, device="cpu", until="sample", runs=tmp_path / "runs", quiet=True)
    made = {name: finished.plan[name].output.record() for name in STAGE_NAMES}
    seconds = {result.name: result.seconds for result in again.results}
    receipts = [json.loads((folder / "receipt.json").read_text())["stages"] for folder in (finished.folder, again.folder)]
    first, second = ({stage["name"]: (stage["seconds"], stage["machine"]) for stage in stages} for stages in receipts)
    assert made["train"].seconds > 0
    for name in ("fit", "tokenize", "train"):
        assert seconds[name] == made[name].seconds
        assert first[name] == second[name] == (made[name].seconds, machine_description())
    assert second["sample"][0] == again.plan["sample"].output.record().seconds != made["sample"].seconds
    page = (again.folder / "report.html").read_text()
    assert f'data-name="took">{duration(made["train"].seconds)}<' in page


def test_samples_do_not_depend_on_the_batch(load, store, finished, tmp_path):
    planned = plan(load("sample.batch_size=7"), store, force=("sample",), until="sample")
    carry_out(planned, device="cpu", runs=tmp_path / "runs", quiet=True)
    np.testing.assert_array_equal(
        planned["sample"].output.read_array("tokens"), finished.plan["sample"].output.read_array("tokens")
    )


def test_damage_is_refused_until_the_stage_is_forced(load, store, tmp_path):
    output = plan(load(), store)["tokenize"].output
    Path(output.chunk_path("train_tokens", 1)).unlink()
    damaged = plan(load(), store)
    assert damaged["tokenize"].action == "damaged"
    with pytest.raises(IncompleteError, match=r"'tokenize'.*chunk 1 of array 'train_tokens' is missing.*--force tokenize"):
        check_ready(damaged, "cpu")
    carry_out(plan(load(), store, force=("tokenize",)), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert plan(load(), store).nothing_to_do


def test_a_part_that_cannot_be_used_here_is_reported_before_anything_runs(load, tmp_path):
    reasons = {0.0: r"\[attention\] 'flex' cannot be used here: ", 0.1: r"model\.attention_dropout is 0\.1: set it to 0"}
    for dropout, message in reasons.items():
        planned = plan(load("attention.name=flex", f"model.attention_dropout={dropout}"), str(tmp_path / "store"))
        with pytest.raises(CapabilityError, match=message):
            check_ready(planned, "cpu")
    assert not (tmp_path / "store").exists()


def test_the_pixel_tokenizer_runs_too(load, tmp_path):
    recipe = load("tokenizer.name=pixel", "sample.per_class=2", "evaluate.bootstrap=0")
    done = run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert "fit" not in [stage.name for stage in done.plan.stages]
    assert done.plan["sample"].output.read_array("tokens").shape == (20, 64)


@pytest.mark.parametrize("protocol", ["memory", "s3"])
def test_any_store_gives_the_same_bits(protocol, request, small_recipe, small_finished, tmp_path):
    bucket = request.getfixturevalue("s3_bucket") if protocol == "s3" else f"bits-{uuid.uuid4()}"
    recipe, store = load_recipe(small_recipe), f"{protocol}://{bucket}/small"
    done = run(recipe, store, device="cpu", runs=tmp_path / "runs", quiet=True)
    for stage in small_finished.plan.stages:
        output = done.plan[stage.name].output
        assert output.fingerprint == stage.output.fingerprint
        for name in stage.output.record().arrays:
            np.testing.assert_array_equal(output.read_array(name), stage.output.read_array(name))
        for name in stage.output.record().files:
            assert output.read_file(name) == stage.output.read_file(name)
    assert plan(recipe, store).nothing_to_do
    assert len(list(Store(store).outputs())) == len(STAGE_NAMES)
