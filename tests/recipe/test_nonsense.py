"""Recipes that are nonsense: one message, no traceback, and neither memory nor time that grows with a number of theirs."""

from __future__ import annotations

import json
import random

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rarkit import load_recipe, plan
from rarkit.cli.app import app
from rarkit.datasets import webdataset
from rarkit.datasets.shards import MOST_SHARDS, expanded
from rarkit.datasets.webdataset import AT_ONCE, WebDataset
from rarkit.errors import DatasetError, GridError, RarkitError, RarkitWarning, RecipeError, sentences
from rarkit.estimate.estimate import estimate
from rarkit.recipe.experiment import resolve
from rarkit.recipe.mistakes import LINES
from rarkit.registry.bounds import MOST_SAMPLES, MOST_TOKENS
from rarkit.scan_orders.raster import Raster
from tests.mutated_recipes import COMMANDS, Outcome, faults_of, faults_of_message, is_small_and_near, mutant, outcomes, recipes
from tests.processes import call


@pytest.fixture(scope="module")
def sources():
    return recipes()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_mutated_recipes_are_planned_or_refused(seed, sources, tmp_path_factory):
    text, _ = mutant(random.Random(seed), sources[seed % len(sources)])
    assume(is_small_and_near(text))
    path = tmp_path_factory.getbasetemp() / "mutant.toml"
    path.write_text(text, encoding="utf-8")
    for arguments in (["validate", str(path)], ["plan", str(path), "--store", "memory://mutants"]):
        error = CliRunner().invoke(app, arguments).exception
        # A mutant may name the folder in which other tests lay what is no image; here, the warning of it is an error.
        if isinstance(error, RarkitError | RarkitWarning):
            assert list(faults_of_message(f"error: {sentences(error)}")) == []
        elif error is not None:
            raise error


def ended(target, folder, numbers):
    """The outcomes of some mutants, as JSON in a file: for a process of its own."""
    sources = recipes()
    cases = [(str(number), mutant(random.Random(f"0 {number}"), sources[number % len(sources)])[0]) for number in numbers]
    told = outcomes([case for case in cases if is_small_and_near(case[1])], folder)
    target.write_text(json.dumps([vars(outcome) for outcome in told]))


def test_the_commands_keep_to_their_limits(tmp_path):
    """``benchmarks/mutated_recipes.py`` does this with thousands."""
    told = call(tmp_path, ended, tmp_path / "ended.json", tmp_path, range(40))
    assert told.returncode == 0, told.stderr
    ends = [Outcome(**outcome) for outcome in json.loads((tmp_path / "ended.json").read_text())]
    assert {outcome.command for outcome in ends} == set(COMMANDS)
    assert [fault for outcome in ends for fault in faults_of(outcome) if " took " not in fault] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["scan_order.name={name='raster'}"],
            r"scan_order\.name: found \{'name': 'raster'\}; expected one of: alternate, raster, spi",
        ),
        (["tokenizer.name=['pixel']"], r"tokenizer\.name: found \['pixel'\]; expected one of: exported, "),
        (["model.name=7"], r"model\.name: found 7; expected one of: llama_ar, rar"),
        (
            ["sample.guidance={name='nonsense'}"],
            r"sample\.guidance\.name: found 'nonsense'; expected one of: constant, linear, power",
        ),
        (["train='adam'"], r"train: found 'adam'; expected a table: set its keys\.$"),
        (["train.weight_decay=1e300"], r"train\.weight_decay: found 1e\+300; input should be less than or equal to 1000000"),
        (
            ["train.batch_size=1000000000000"],
            r"train\.batch_size: found 1000000000000; input should be less than or equal to 1048576",
        ),
        (
            ["permutation_schedule={name='linear', start='x'}"],
            r"schedule\.start: found 'x'; input .* integer, or input .* number\.$",
        ),
        ([f"title={'x' * 5000!r}", "sample.per_class=y"], r"per_class: found 'y'; input should be a valid integer"),
        ([f"dataset.name={'x' * 5000}"], r"^.{20,400}$"),
        ([f"model.weights={'x' * 5000}"], r"model\.weights: found 'x+\.\.\.x+'; string should have at most 4096 characters"),
    ],
    ids=range(11),
)
def test_messages_name_the_setting_and_stay_short(digits_recipe, overrides, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(digits_recipe, overrides)


def test_a_file_with_thousands_of_mistakes(tmp_path):
    (tmp_path / "x.toml").write_text("".join(f"key{number} = 1\n" for number in range(5000)))
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path / "x.toml"))
    lines = str(caught.value).splitlines()
    assert len(lines) == LINES
    assert "x.toml:1: key0: no such key. Allowed: title, seed, " in lines[0]
    named = ", ".join(f"key{number}" for number in range(2, 12))
    assert lines[-1] == f"Also wrong or missing: {named} and others. Correct them, and validate again."


@pytest.mark.parametrize("grid", [(2**30, 1), (1, 10**12), (1025, 1024)])
def test_orders_of_grids_without_an_end_are_not_made(grid):
    with pytest.raises(GridError, match=rf"has more than {MOST_TOKENS:,} tokens\. Choose smaller images, or a \[tokenizer\]"):
        Raster().order(*grid)
    assert len(Raster().order(1024, 1024)) == MOST_TOKENS


def test_more_samples_than_a_plan_can_hold(digits_recipe):
    most = MOST_SAMPLES // 10
    assert len(resolve(load_recipe(digits_recipe, [f"sample.per_class={most}"])).sample_classes) == 10
    with pytest.raises(RecipeError, match=rf"sample\.per_class: {most + 1:,} images .* Set per_class to {most:,} or less"):
        resolve(load_recipe(digits_recipe, [f"sample.per_class={most + 1}"]))
    assert estimate(plan(load_recipe(digits_recipe, [f"sample.per_class={most}", "sample.batch_size=1"]), "memory://m")).sample


@pytest.mark.parametrize("pattern", ["a-{0..999999999999}.tar", "{a,b}" * 30, f"{{0..{'9' * 5000}}}", "{0..1999}{0..1999}"])
def test_more_shards_than_anybody_has(pattern):
    with pytest.raises(DatasetError, match=rf"stands for more than {MOST_SHARDS:,} shards\. Check the numbers in the pattern\."):
        expanded(pattern)
    assert len(expanded("a-{000..999}{a,b}.tar")) == 2000


def test_of_many_shards_that_are_missing_few_are_looked_for(tmp_path, monkeypatch):
    looked_for = []
    sizes = LocalFileSystem.sizes
    monkeypatch.setattr(LocalFileSystem, "sizes", lambda self, paths: (looked_for.extend(paths), sizes(self, paths))[1])
    with pytest.raises(DatasetError, match=rf"there is no {tmp_path}/0\.tar, which one of .*/0\.tar … .*/{AT_ONCE - 1}\.tar needs"):
        WebDataset(urls=f"{tmp_path}/{{0..99999}}.tar", num_classes=2).content()
    assert looked_for == [f"{tmp_path}/{number}.tar" for number in range(AT_ONCE)]


def test_shards_are_the_same_however_many_are_looked_for_at_once(tmp_path, monkeypatch):
    for number in range(7):
        (tmp_path / f"{number}.tar").write_bytes(b"x" * number)
    shards = WebDataset(urls=f"{tmp_path}/{{0..6}}.tar", num_classes=2)
    together = shards.content()
    monkeypatch.setattr(webdataset, "AT_ONCE", 3)
    assert shards.content() == together
