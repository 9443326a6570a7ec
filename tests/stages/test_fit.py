"""A tokenizer that learns with the engine: in one process and in two, and killed on the way."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from rarkit.cache.store import Store
from rarkit.engine.learning import Learning
from rarkit.engine.trained import Note
from rarkit.errors import PluginError
from rarkit.stages.base import read_log, read_state
from rarkit.stages.fit import fit_kept_step, fit_measured, fit_notes
from rarkit.stages.shown_images import SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS
from tests.processes import call, call_ranks
from tests.stages.learned_shades import SHADES, STEPS, fitted


def shades(folder):
    [output] = Store(str(folder / "store")).outputs()
    assert output.verify() is None
    assert output.file_names() == ["notes.json"]
    return read_state(output)["shades"]


def noted(folder):
    """The log, what was measured, what was noted, and the names of the pictures."""
    [output] = Store(str(folder / "store")).outputs()
    columns = [{name: values.tolist() for name, values in found.items()} for found in (read_log(output), fit_measured(output))]
    run = folder / "runs/shades"
    columns[1]["kept"] = fit_kept_step(output)
    return *columns, fit_notes(output), sorted(path.name for path in (run / "previews").iterdir()), (run / "log.jsonl").read_text()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done = call(folder, fitted, str(folder / "store"), str(folder / "runs"))
    assert done.returncode == 0, done.stderr
    return shades(folder), noted(folder)


def test_it_learns(alone):
    alone, _ = alone
    assert alone.shape == (SHADES,)
    assert np.abs(alone - np.linspace(0.2, 0.8, SHADES)).max() > 0.02


def test_its_training_can_be_looked_at(alone):
    log, measured, notes, pictures, lines = alone[1]
    assert log["step"] == list(range(STEPS))
    assert log["loss"][-1] < log["loss"][0]
    assert measured["step"] == [0, 15, 30, STEPS]
    assert min(measured["held_out_error"]) < measured["held_out_error"][0]
    assert measured["kept"] == measured["step"][np.argmin(measured["held_out_error"])]
    assert notes == (Note(name="grey", value=0.5, sentence="A single grey has an error of {value}.", beside="held_out_error"),)
    assert pictures == [f"fit-step-{step:06d}.png" for step in (0, 25, 40)]
    told = [json.loads(line) for line in lines.splitlines()]
    assert [record["loss"] for record in told if "loss" in record] == log["loss"]
    assert [record["step"] for record in told if "held_out_error" in record] == measured["step"]
    assert {record["stage"] for record in told} == {"fit"}


def test_two_processes_learn_the_same(alone, tmp_path):
    done = call_ranks(2, tmp_path, fitted, str(tmp_path / "store"), str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "2 processes (ddp)" in done.stderr
    np.testing.assert_allclose(shades(tmp_path), alone[0], rtol=1e-4)
    assert noted(tmp_path)[2:4] == alone[1][2:4]


def test_killed_it_goes_on_to_the_same_bits(alone, tmp_path):
    places = str(tmp_path / "store"), str(tmp_path / "runs")
    assert call(tmp_path, fitted, *places, 20).returncode == -signal.SIGKILL
    done = call(tmp_path, fitted, *places)
    assert done.returncode == 0, done.stderr
    assert "resuming from the checkpoint at step 20" in done.stderr
    assert shades(tmp_path).tobytes() == alone[0].tobytes()
    assert noted(tmp_path) == alone[1]


def test_killed_before_a_checkpoint_it_says_that_it_starts_again(alone, tmp_path):
    places = str(tmp_path / "store"), str(tmp_path / "runs")
    assert call(tmp_path, fitted, *places, 0).returncode == -signal.SIGKILL
    done = call(tmp_path, fitted, *places)
    assert "fit: starts again: an earlier run left nothing whole to go on from" in " ".join(done.stderr.split())
    assert shades(tmp_path).tobytes() == alone[0].tobytes()


def test_a_note_needs_a_place_for_its_number():
    with pytest.raises(PluginError, match=r"note 'grey' has no \{value\}"):
        Learning().note("grey", 0.5, "The error of a single grey.")


def test_the_images_that_are_shown_are_those_of_reference(small_finished):
    fit, reference = (small_finished.plan[name].output for name in ("fit", "reference"))
    for name in (SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS):
        np.testing.assert_array_equal(fit.read_array(name), reference.read_array(name))
