"""A tokenizer that learns with the engine: in one process and in two, and killed on the way."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from rarkit.cache.store import Store
from rarkit.stages.base import read_state
from tests.processes import call, call_ranks
from tests.stages.learned_shades import SHADES, fitted


def shades(folder):
    [output] = Store(str(folder / "store")).outputs()
    assert output.verify() is None
    assert output.file_names() == []
    return read_state(output)["shades"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done = call(folder, fitted, str(folder / "store"), str(folder / "runs"))
    assert done.returncode == 0, done.stderr
    return shades(folder)


def test_it_learns(alone):
    assert alone.shape == (SHADES,)
    assert np.abs(alone - np.linspace(0.2, 0.8, SHADES)).max() > 0.02


def test_two_processes_learn_the_same(alone, tmp_path):
    done = call_ranks(2, tmp_path, fitted, str(tmp_path / "store"), str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "2 processes (ddp)" in done.stderr
    np.testing.assert_allclose(shades(tmp_path), alone, rtol=1e-4)


def test_killed_it_goes_on_to_the_same_bits(alone, tmp_path):
    places = str(tmp_path / "store"), str(tmp_path / "runs")
    assert call(tmp_path, fitted, *places, 20).returncode == -signal.SIGKILL
    done = call(tmp_path, fitted, *places)
    assert done.returncode == 0, done.stderr
    assert "resuming from the checkpoint at step 20" in done.stderr
    assert shades(tmp_path).tobytes() == alone.tobytes()
