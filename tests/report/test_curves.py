"""Everything that is logged is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rarkit.evaluation.record import MetricRecord
from rarkit.report.curves import LOOKS, STEP, training_curves
from rarkit.stages.held_out import HeldOutBits

LIKELIHOOD = MetricRecord("bits_per_token", 2.5, unit="bits", yardsticks={"training images": 1.6, "uniform tokens": 6.0})


def log(steps=200):
    draw = np.random.default_rng(0)
    return {STEP: np.arange(steps), **{name: draw.random(steps) for name in LOOKS}}


def test_each_column_of_the_log_has_a_chart():
    columns = log()
    assert set(columns) == {STEP, *LOOKS}
    curves = training_curves(columns)
    assert [curve.title for curve in curves] == ["Loss", "Accuracy", "Random ratio", "Learning rate", "Gradient norm"]
    for curve, (name, look) in zip(curves, LOOKS.items(), strict=True):
        np.testing.assert_array_equal(curve.series[0].x, columns[STEP])
        np.testing.assert_allclose(curve.series[0].y, columns[name] * look.factor)
    np.testing.assert_allclose(curves[0].series[0].y, columns["loss"] / math.log(2))


def test_a_column_that_nobody_knows_has_a_chart_too():
    (*_, last) = training_curves({**log(), "held_out_accuracy": np.linspace(0, 1, 200)})
    assert (last.title, last.y_label) == ("Held out accuracy", "held out accuracy")
    np.testing.assert_array_equal(last.series[0].y, np.linspace(0, 1, 200))


@pytest.mark.parametrize("steps", [1, 49, 100, 149, 200])
def test_means_lie_in_the_middle_of_what_they_are_of(steps):
    columns = {**log(steps), "loss": np.arange(steps) * math.log(2)}
    for series in training_curves(columns)[0].series:
        assert len(series.x) == len(series.y)
        np.testing.assert_allclose(series.x, series.y, atol=0.5 + 1e-9)


def test_held_out_likelihood_is_beside_the_loss():
    points = {series.label: (series.x.tolist(), series.y.tolist()) for series in training_curves(log(), [LIKELIHOOD])[0].series[2:]}
    assert points == {"held-out images, trained model": ([199], [2.5]), "training images, trained model": ([199], [1.6])}
    without = training_curves(log(), [LIKELIHOOD], held_out=False)[0].series[2:]
    assert [series.label for series in without] == ["training images, trained model"]


def test_what_was_measured_on_the_way_is_a_line_beside_the_loss():
    entries = [
        HeldOutBits(step=50, held_out_bits=3.0, held_out_bits_random_orders=3.5),
        HeldOutBits(step=100, held_out_bits=2.75, held_out_bits_random_orders=3.25),
    ]
    series = {
        series.label: (series.x.tolist(), series.y.tolist()) for series in training_curves(log(), measured=entries)[0].series[2:]
    }
    assert series == {"held-out images": ([50, 100], [3.0, 2.75]), "held-out images, random orders": ([50, 100], [3.5, 3.25])}
    without = training_curves(log(), measured=[HeldOutBits(step=50, held_out_bits=3.0)])[0].series[2:]
    assert [series.label for series in without] == ["held-out images"]


def test_without_training_there_are_no_charts():
    assert training_curves({}, [LIKELIHOOD]) == []
