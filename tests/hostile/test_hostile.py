"""Hostile inputs: each is told about, none does harm."""

from __future__ import annotations

import json

import pytest

from tests.hostile.harness import Ended, corpus, judged_into
from tests.processes import call


@pytest.mark.parametrize("name", corpus())
def test_a_hostile_input(name, tmp_path, run):
    told = call(tmp_path, judged_into, tmp_path / "ended.json", name, tmp_path / "place", run)
    assert told.returncode == 0, told.stderr
    ended = Ended(**json.loads((tmp_path / "ended.json").read_text()))
    assert not ended.complaints, f"{ended.stdout}{ended.stderr}"
