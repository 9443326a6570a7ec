"""Hostile inputs: what is wrong with each is said, and none does harm."""

from __future__ import annotations

import json
import sys

import pytest

from tests.hostile.harness import Ended, corpus, judged_into
from tests.processes import call

ENTRIES = corpus()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory, times of access and terminals as Linux has them")
@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if not entry.slow])
def test_a_hostile_input(name, tmp_path, run):
    judging = call(tmp_path, judged_into, tmp_path / "ended.json", name, tmp_path / "place", run)
    assert judging.returncode == 0, judging.stderr
    ended = Ended(**json.loads((tmp_path / "ended.json").read_text()))
    assert not ended.complaints, f"{ended.stdout}{ended.stderr}"
