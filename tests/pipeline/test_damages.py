"""Damages to a finished store: seen by ``verify``, never used by a run. ``benchmarks/damages.py`` does hundreds of them."""

from __future__ import annotations

import random
import shutil

import pytest

from rarkit import load_recipe, plan
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError
from rarkit.pipeline.execution import execute
from rarkit.pipeline.preflight import check_ready
from rarkit.runtime.progress import Reporter
from tests.damages import CASES, damaged

READER = {"fit": "tokenize", "tokenize": "train", "train": "sample"}
"""A stage that reads the output of a stage."""


@pytest.fixture(scope="module")
def other(small_recipe, tmp_path_factory):
    """The store of another run."""
    folder = tmp_path_factory.mktemp("other")
    carry_out(plan(load_recipe(small_recipe, ["seed=7"]), str(folder / "store"), until="train"))
    return folder / "store"


def carry_out(planned):
    """Runs the stages, without a report."""
    check_ready(planned, "cpu")
    execute(planned, "cpu", Reporter(quiet=True), lambda stage, record: None)


@pytest.mark.parametrize("case", random.Random(6).sample(CASES, 12), ids=lambda case: f"{case[1]} of {case[0]}")
def test_what_is_damaged_is_seen_and_not_used(case, other, small_finished, small_recipe, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(small_finished.plan.store.root, store)
    damage = damaged(store, other, *case, random.Random(str(case)), tuple(READER))
    seen = {f"{output.stage}/{output.fingerprint}" for output in Store(str(store)).outputs() if output.verify() is not None}
    assert seen == damage.outputs
    stage = next(stage for stage in READER if stage in damage.stages)
    for reader in list(small_finished.plan.outputs())[list(READER).index(stage) + 1 :]:
        if reader not in damage.stages:
            shutil.rmtree(store / reader)
    planned = plan(load_recipe(small_recipe), str(store), until=READER[stage])
    assert planned[READER[stage]].action in ("run", "damaged")
    refused = refusal(planned)
    if refused is not None:
        assert "is damaged: " in refused
        assert any(f"--force {stage}" in refused for stage in damage.stages)
    else:
        made, expected = (either[READER[stage]].output.record() for either in (planned, small_finished.plan))
        assert (made.arrays, made.sha256) == (expected.arrays, expected.sha256)


def refusal(planned):
    """What a run says that does not use what is there; None if it ends well."""
    try:
        carry_out(planned)
    except IncompleteError as error:
        return str(error)
    return None
