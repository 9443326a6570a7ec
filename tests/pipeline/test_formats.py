"""Runs written by an older rarkit still load; those written by a newer one are refused as such.

``tests/data/format_1.tar.gz`` is a short digits run from before records, receipts and locks had format numbers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rarkit
from rarkit.cache.receipt_content import FORMAT
from rarkit.cache.record import SEALED_IN_PART
from rarkit.cache.run_folders import read_receipt
from rarkit.cli.app import app
from rarkit.errors import RecipeError, StoreError
from rarkit.pipeline.receipt import open_run, shows
from tests.damages import without_seal

OLD = Path(__file__).parents[1] / "data/format_1.tar.gz"


@pytest.fixture
def old(tmp_path):
    """The folder of the old run, with its store beside it."""
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    receipt = tmp_path / "runs/digits/receipt.json"
    receipt.write_text(receipt.read_text().replace("STORE", (tmp_path / "store").as_uri()))
    return receipt.parent


def test_an_old_run_is_sampled_from(old):
    drawing = rarkit.sample(old, ["3", "7"], 4, device="cpu", quiet=True)
    # These images are what the old rarkit sampled; on another processor, rounding may lead to other tokens.
    assert drawing.tokens_NL.shape == (8, 16)
    if drawing.tokens_NL[0].tolist() == [1, 6, 3, 8, 12, 6, 3, 3, 7, 0, 1, 6, 6, 1, 5, 7]:
        digest = hashlib.sha256(drawing.images_NHWC.tobytes()).hexdigest()
        assert digest == "6fbbe0a4977f7bfa26db16094d39cdeaff9ebd9e2973568295d93750c31340b0"


def test_an_old_run_is_exported(old, tmp_path):
    from rarkit.inference.export import export_model
    from rarkit.models import load_rar

    for merged in (False, True):
        model = load_rar(export_model(old, tmp_path / f"{merged}.safetensors", merged=merged))
        assert (model.config.hidden_size, model.config.target_aware, model.config.conditioning) == (8, True, "adaln")


def test_a_plan_says_that_an_older_rarkit_wrote_the_outputs(old, digits_recipe):
    planned = rarkit.plan(rarkit.load_recipe(digits_recipe), str(old.parents[1] / "store"))
    reasons = {stage.name: (stage.action, stage.reason) for stage in planned.stages}
    for name in ("fit", "train", "sample"):
        assert reasons[name] == ("run", "the stored output is from an older rarkit")
    assert not shows(old, planned)


def test_the_store_says_which_outputs_are_of_an_older_or_a_newer_rarkit(old, capsys, monkeypatch):
    from rarkit.cli import stored

    store = old.parents[1] / "store"
    newer = next(store.glob("sample/*/zarr.json"))
    record = json.loads(newer.read_text())
    record["attributes"]["rarkit"]["format"] = 99
    newer.write_text(json.dumps(record))
    rows = {row["stage"]: row for row in stored.outputs_as_json(str(store), stored.outputs(str(store), None))}
    assert rows["fit"]["state"] == rows["train"]["state"] == "complete, sealed in part"
    assert (rows["sample"]["state"], rows["sample"]["complete"]) == ("from a newer rarkit", False)
    defects = {output.stage: stored.verified(output) for output in stored.outputs(str(store), None)}
    assert (defects["fit"], defects["train"]) == (("intact", SEALED_IN_PART), ("intact", SEALED_IN_PART))
    assert defects["sample"] == ("damaged", "written by a newer rarkit: update rarkit to read it")


def test_what_is_sealed_in_part_is_used_and_said_to_be(small_finished, small_recipe, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(small_finished.plan.store.root, store)
    for output in store.glob("*/*/zarr.json"):
        without_seal(output.parent)
    planned = rarkit.plan(rarkit.load_recipe(small_recipe), str(store))
    assert {(stage.action, stage.reason) for stage in planned.stages} == {("cached", SEALED_IN_PART)}
    for reader in ("sample", "evaluate"):
        shutil.rmtree(store / reader)
    again = rarkit.run(rarkit.load_recipe(small_recipe), str(store), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert {result.name for result in again.results if result.action == "ran"} == {"sample", "evaluate"}
    assert again.metrics == small_finished.metrics
    assert again.plan["sample"].output.begun().arrays == small_finished.plan["sample"].output.begun().arrays


def test_a_receipt_of_a_newer_rarkit_is_refused(old):
    assert read_receipt(old).format == 1
    receipt = json.loads((old / "receipt.json").read_text())
    (old / "receipt.json").write_text(json.dumps({**receipt, "format": FORMAT + 1}))
    with pytest.raises(RecipeError, match=r"written by a newer rarkit.*Update rarkit"):
        open_run(old)


def test_receipts_carry_a_format_and_the_shape_of_the_images(finished, monkeypatch):
    from rarkit.datasets.digits import Digits

    receipt = read_receipt(finished.folder)
    assert receipt.format == FORMAT
    assert receipt.images.model_dump() == {"height": 8, "width": 8, "channels": 1, "class_names": tuple("0123456789")}
    # The data need not be present.
    monkeypatch.setattr(Digits, "info", lambda self: pytest.fail("the dataset was read"))
    assert open_run(finished.folder).experiment.images == finished.plan.experiment.images


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("[", "its zarr.json is damaged (Invalid JSON"),
        ('{"attributes": {"rarkit": {"stage": "train", "arrays": 5}}}', "its zarr.json is damaged (attributes.rarkit.arrays: "),
        ('{"attributes": {"rarkit": {"format": 99}}}', "a newer rarkit wrote it"),
    ],
)
def test_a_bad_record_spoils_nothing_but_its_own_stage(record, told, small_finished, small_recipe, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(small_finished.plan.store.root, store)
    next(store.glob("train/*/zarr.json")).write_text(record)
    # Another output of the stage, with a record as bad.
    shutil.copytree(next(store.glob("train/*")), store / "train" / ("0" * 20))
    recipe = rarkit.load_recipe(small_recipe)
    planned = rarkit.plan(recipe, str(store))
    assert {stage.name: stage.action for stage in planned.stages} == {
        **dict.fromkeys(("fit", "tokenize", "sample", "reference", "evaluate"), "cached"),
        "train": "damaged",
    }
    assert told in planned["train"].reason
    assert planned.outputs().keys() == {"fit", "tokenize", "sample", "reference", "evaluate"}
    with pytest.raises(StoreError, match=r"the output of stage 'train' .*( is damaged: |newer rarkit)"):
        rarkit.run(recipe, str(store), device="cpu", runs=tmp_path / "runs", quiet=True)
    changed = rarkit.plan(rarkit.load_recipe(small_recipe, ["train.learning_rate=0.5"]), str(store))
    assert changed["train"].action == "run"
    tokens = rarkit.load_recipe(small_recipe, [f"train.tokens={next(store.glob('train/*'))}"])
    assert "train.tokens = " in str(rarkit.plan(tokens, str(store))["train"].obstacle)
    for command in ("ls", "verify"):
        done = CliRunner().invoke(app, ["cache", command, "--store", str(store), "--json"])
        assert done.exit_code == int(command == "verify"), done.exception
        assert ("from a newer rarkit" if "99" in record and command == "ls" else "damaged") in done.stdout
