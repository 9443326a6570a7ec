"""The page shows what a tokenizer's training logged, measured and noted, and says so where codes collapsed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.engine.trained import Note
from rarkit.report.data import RunReport
from rarkit.report.fit_section import FEW, USED, WINDOW, collapse, logged_curves, measured_curves
from rarkit.report.page import render

STEP = np.arange(100)
CODES = 64
LOG = {
    "step": STEP,
    "loss": 1.0 / (1 + STEP),
    "critic_gradient_norm": 2.0 + STEP,
    USED: np.full(100, 40.0),
    "learning_rate": np.full(100, 1e-3),
}
MEASURED = {
    "step": np.array([0, 50, 100]),
    "held_out_error": np.array([-30.0, -33.0, -32.0]),
    "held_out_psnr": np.array([30.0, 33.0, 32.0]),
}
NOTES = (
    Note(name="patch_kmeans", value=31.5, sentence="A codebook of patches reaches {value} dB.", beside="held_out_psnr"),
    Note(name="images", value=900, sentence="It was trained on {value} images."),
)


def test_each_column_has_a_chart():
    curves = logged_curves(LOG, NOTES, CODES)
    assert [curve.title for curve in curves] == ["Loss", "Critic gradient norm", "Codes in use", "Learning rate"]
    assert [curve.log_y for curve in curves] == [False, True, False, False]
    for curve, name in zip(curves, (name for name in LOG if name != "step"), strict=True):
        np.testing.assert_array_equal(curve.series[0].y, LOG[name])
    assert curves[2].series[-1].label == "all codes"
    assert set(curves[2].series[-1].y) == {CODES}


def test_what_was_measured_has_the_kept_weights_and_its_notes_beside_it():
    (curve,) = measured_curves(MEASURED, NOTES, 50)
    measured, kept, kmeans = curve.series
    np.testing.assert_array_equal(measured.y, MEASURED["held_out_psnr"])
    assert (kept.x.tolist(), kept.y.tolist()) == ([50], [33.0])
    assert (kmeans.label, kmeans.x.tolist(), kmeans.y.tolist()) == ("patch_kmeans", [0, 100], [31.5, 31.5])
    # Chosen among those that were trained with every loss.
    (late,) = measured_curves(MEASURED, (), 100)
    assert (late.series[1].x.tolist(), late.series[1].y.tolist()) == ([100], [32.0])


def test_an_error_of_its_own_is_drawn_too():
    other = {**MEASURED, "held_out_error": np.array([3.0, 1.0, 2.0])}
    assert [curve.title for curve in measured_curves(other, (), 50)] == ["Error of held-back images", "PSNR of held-back images"]


def counted_over(steps):
    return (*NOTES, Note(name=WINDOW, value=steps, sentence="Codes in use are those of the last {value} steps."))


@given(st.integers(0, CODES))
def test_few_codes_are_remarked(used):
    remarks = collapse({**LOG, USED: np.append(LOG[USED], used)}, counted_over(20), CODES)
    assert bool(remarks) == (used < FEW * CODES)
    assert all(f"with {used} of {CODES} codes in use" in remark for remark in remarks)


@pytest.mark.parametrize("log", [{}, {"step": STEP, "loss": LOG["loss"]}])
def test_without_a_count_of_codes_nothing_is_remarked(log):
    assert collapse(log, counted_over(1), CODES) == ()


@given(st.integers(0, 300), st.integers(1, 300))
def test_a_training_shorter_than_the_count_looks_back_says_nothing(steps, window):
    log = {"step": np.arange(steps), USED: np.ones(steps)}
    assert bool(collapse(log, counted_over(window), CODES)) == (steps >= window)
    assert collapse(log, NOTES, CODES) == ()


def test_without_a_training_the_section_is_left_out():
    plain = RunReport("title", "name", "", "", "")
    assert logged_curves({}, NOTES, CODES) == measured_curves({}, NOTES, 0) == []
    assert "tokenizer's training" not in render(plain).lower().replace("&#39;", "'")
    curves = tuple(measured_curves(MEASURED, NOTES, 50))
    shown = RunReport("title", "name", "", "", "", fit_curves=curves, fit_sentences=("A note.",))
    page = render(shown)
    assert "<h2>The tokenizer's training</h2>" in page
    assert "PSNR of held-back images" in page
    assert "A note." in page
