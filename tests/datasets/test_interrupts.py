"""Ctrl-C reaches every process of a terminal; one of them answers."""

from __future__ import annotations

import pytest

from tests.datasets.interrupted import interrupted
from tests.processes import call


@pytest.mark.parametrize("when", ["starting", "started"])
def test_workers_leave_ctrl_c_to_the_process_that_started_them(tmp_path, when):
    ended = call(tmp_path, interrupted, tmp_path, when)
    assert (ended.returncode, ended.stderr) == (0, "interrupted\n")
