"""What validate and plan fetch from other machines: nothing, and nothing large; a run fetches, and says what."""

from __future__ import annotations

import functools
import http.server
import json
import threading

import fsspec
import pytest
from typer.testing import CliRunner

from rarkit import load_recipe, plan, run
from rarkit.cli.app import app
from rarkit.errors import NotFetchedError
from rarkit.estimate.estimate import estimate
from rarkit.pipeline.run import carry_out
from tests.files.test_weights import planted, recipe_of

NPZ = """
title = "Digits elsewhere"
extends = "{digits}"
unset = ["dataset"]
[dataset]
name = "npz"
path = "{place}/digits.npz"
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A web server's address, its folder, and the methods and paths of the requests so far."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "site").mkdir()
    asked = []

    class Noting(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append((self.command, self.path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Noting, directory=tmp_path / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "site", asked
    server.shutdown()
    server.server_close()


def test_a_plan_leaves_weights_where_they_are_and_a_run_fetches_them(elsewhere, tmp_path, capsys):
    place, site, asked = elsewhere
    planted(site / "rar.bin", tmp_path / "vqgan.safetensors")
    recipe, store = recipe_of(tmp_path / "r.toml", f"{place}/rar.bin", "vqgan.safetensors"), str(tmp_path / "store")
    planned = plan(recipe, store)
    assert {method for method, _ in asked} == {"HEAD"}
    assert (planned["sample"].action, planned["sample"].reason) == ("unknown", f"unknown until {place}/rar.bin is read")
    assert planned["sample"].fingerprint is None
    assert planned.obstacle is None
    assert not planned.nothing_to_do
    assert [tuple(address) for address in planned.addresses] == [
        ("tokenizer.weights", str(tmp_path / "vqgan.safetensors"), False),
        ("model.weights", f"{place}/rar.bin", True),
    ]
    with pytest.raises(NotFetchedError, match=r"rar\.bin is on another machine and was not fetched"):
        carry_out(planned, device="cpu", runs=tmp_path / "runs", quiet=True)
    done = run(recipe, store, device="cpu", runs=tmp_path / "runs", until="sample")
    assert f"model.weights: reading {place}/rar.bin" in "".join(capsys.readouterr().err.split("\n"))
    assert ("GET", "/rar.bin") in asked
    # Now there is a copy, whose digest is known.
    asked.clear()
    again = plan(recipe, store)
    assert again["sample"].action == "cached"
    assert again["sample"].fingerprint == done.plan["sample"].fingerprint
    assert {method for method, _ in asked} == {"HEAD"}


def test_the_plan_lists_what_a_run_reads(elsewhere, tmp_path):
    place, site, _ = elsewhere
    planted(site / "rar.bin", tmp_path / "vqgan.safetensors")
    recipe_of(tmp_path / "r.toml", f"{place}/rar.bin", "vqgan.safetensors")
    asked = ["plan", str(tmp_path / "r.toml"), "--store", str(tmp_path / "store")]
    text = CliRunner().invoke(app, asked).stdout
    assert f"reads {place}/rar.bin (model.weights, on another machine)" in text
    reads = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["reads"]
    assert {"setting": "model.weights", "place": f"{place}/rar.bin", "remote": True} in reads


def test_validate_fetches_nothing_but_a_base_which_it_names(elsewhere, tmp_path, digits_recipe):
    place, site, asked = elsewhere
    (site / "base.toml").write_text(NPZ.format(digits=digits_recipe, place=place))
    (tmp_path / "mine.toml").write_text(f'extends = "{place}/base.toml"\ntitle = "Mine"\n')
    result = CliRunner().invoke(app, ["validate", str(tmp_path / "mine.toml")])
    assert result.exit_code == 0, result.output
    assert {path for _, path in asked} == {"/base.toml"}
    told = "".join(result.stderr.split())  # without the line breaks of a narrow terminal
    assert f"fetching{place}/base.toml(extendedby{tmp_path}/mine.toml)" in told
    assert f"{place}/digits.npzisonanothermachineandwasnotread:imagesize,classes," in told
    assert "isvalid." in told


def test_nothing_is_said_of_a_recipe_without_addresses(digits_recipe):
    result = CliRunner().invoke(app, ["plan", digits_recipe, "--store", "memory://without"])
    assert "reads " not in result.stdout
    assert plan(load_recipe(digits_recipe), "memory://without").addresses == []


def test_a_plan_leaves_the_weights_of_a_start_where_they_are_and_a_run_fetches_them(
    elsewhere, tmp_path, small_finished, small_recipe
):
    place, site, asked = elsewhere
    (site / "start.safetensors").write_bytes(small_finished.plan["train"].output.read_file("model.safetensors"))
    recipe = load_recipe(small_recipe, [f"train.init_from={place}/start.safetensors", "train.steps=1"])
    planned = plan(recipe, str(tmp_path / "store"))
    assert {method for method, _ in asked} == {"HEAD"}
    assert planned["train"].reason == f"unknown until {place}/start.safetensors is read"
    assert ("train.init_from", f"{place}/start.safetensors", True) in [tuple(address) for address in planned.addresses]
    done = run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", until="train")
    assert asked.count(("GET", "/start.safetensors")) == 1
    assert done.plan["train"].output.is_complete


def test_of_a_start_in_a_store_elsewhere_the_record_tells_what_it_is(s3_bucket, tmp_path, small_finished, small_recipe):
    output = small_finished.plan["train"].output
    there = f"s3://{s3_bucket}/{output.name}"
    fsspec.filesystem("s3").put(output.path, there, recursive=True)
    here, elsewhere = (
        plan(load_recipe(small_recipe, [f"train.init_from={place}"]), "memory://start") for place in (output.path, there)
    )
    assert elsewhere["train"].fingerprint == here["train"].fingerprint is not None
    assert estimate(elsewhere).initial_changes == (
        f"starts from {there}/files/model.safetensors; what is adapted is unknown until it is read",
    )
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
