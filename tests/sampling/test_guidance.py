"""Guidance schedules against the released numbers and against what each says of itself; and the noise."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rarkit.errors import UserError
from rarkit.sampling import Constant, Guidance, Interval, Linear, PowerCosine, noise
from tests.models.rar.small import PARITY

SCHEDULES = json.loads((PARITY / "schedules.json").read_text())["guidance"]


@pytest.mark.parametrize("known", SCHEDULES, ids=lambda known: f"{known['scale']}-{known['power']}")
def test_power_cosine_parity(known):
    schedule = PowerCosine(scale=known["scale"], power=known["power"])
    for step, scale in known["values"]:
        assert schedule.scale_at(step, known["seq_len"]) == pytest.approx(scale, rel=1e-9)


@given(st.floats(0, 20), st.floats(0, 4), st.integers(1, 300), st.data())
def test_scales_lie_between_their_ends(scale, power, total, data):
    step = data.draw(st.integers(0, total - 1))
    low, high = min(scale, 1.0) - 1e-12, max(scale, 1.0) + 1e-12
    for schedule in (Constant(scale=scale), Linear(scale=scale), PowerCosine(scale=scale, power=power), Interval(scale=scale)):
        assert low <= schedule.scale_at(step, total) <= high


@given(st.floats(1, 20), st.floats(0, 4), st.integers(1, 100))
def test_power_cosine_and_linear_never_fall(scale, power, total):
    for schedule in (Linear(scale=scale), PowerCosine(scale=scale, power=power)):
        scales = [schedule.scale_at(step, total) for step in range(total)]
        assert np.diff(scales).min(initial=0.0) >= -1e-12


@given(st.floats(0, 20), st.floats(0, 20), st.integers(2, 100))
def test_linear_meets_both_ends_in_equal_steps(start, scale, total):
    scales = [Linear(start=start, scale=scale).scale_at(step, total) for step in range(total)]
    assert scales[0] == start
    assert scales[-1] == scale
    np.testing.assert_allclose(np.diff(scales), (scale - start) / (total - 1), atol=1e-9)


@given(st.floats(2, 20), st.floats(0, 1), st.floats(0, 1), st.integers(1, 100))
def test_interval_guides_its_share_of_the_steps(scale, one, other, total):
    start, end = sorted((one, other))
    scales = np.array([Interval(scale=scale, start=start, end=end).scale_at(step, total) for step in range(total)])
    inside = scales != 1.0
    assert set(scales[inside]) <= {scale}
    assert abs(inside.sum() - (end - start) * total) < 1 + 1e-9
    assert (np.diff(inside.astype(int)) == 1).sum() + inside[0] <= 1


def test_guidance_is_chosen_by_name():
    adapter = TypeAdapter(Guidance)
    for schedule in (Constant(scale=2.0), Linear(scale=2.0), PowerCosine(scale=2.0, power=1.0), Interval(scale=2.0)):
        assert adapter.validate_python(schedule.model_dump()) == schedule
    with pytest.raises(ValidationError, match="power_cosine"):
        adapter.validate_python({"name": "cosine", "scale": 2.0})
    with pytest.raises(ValidationError, match=r"start 0.5 is after end 0.25"):
        Interval(scale=2.0, start=0.5, end=0.25)


@given(st.integers(0, 2**70), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8), st.integers(1, 20))
def test_noise_belongs_to_the_index(seed, indices, length):
    rows = noise(seed, indices, length)
    assert rows.shape == (len(indices), length)
    assert rows.dtype == np.float64
    assert ((rows >= 0) & (rows < 1)).all()
    for index, row in zip(indices, rows, strict=True):
        assert np.array_equal(noise(seed, [index], length)[0], row)


def test_settings_load_no_torch():
    code = "import sys; from rarkit.sampling import PowerCosine, noise; noise(0, [1], 4); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "schedule", [Constant(scale=2.0), Linear(scale=2.0), PowerCosine(scale=2.0, power=1.0), Interval(scale=2.0)]
)
@pytest.mark.parametrize(("step", "total"), [(-1, 4), (4, 4), (0, 0), (1.0, 4), (True, 4), ("1", 4)])
def test_steps_outside_are_refused(schedule, step, total):
    with pytest.raises(UserError, match="must be a whole number from"):
        schedule.scale_at(step, total)
