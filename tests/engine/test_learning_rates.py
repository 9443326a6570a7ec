"""Learning rates: continuous, between the ends, and equal to them where a schedule begins and ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rarkit.engine.learning_rates import cosine_decay, learning_rate, square_root_decay
from rarkit.engine.settings import TrainSettings

SCHEDULES = ("cosine", "constant", "wsd")
rates = st.floats(1e-6, 1.0)


@st.composite
def trainings(draw, schedules=SCHEDULES):
    """Settings of any schedule, whose end is no higher than their peak."""
    steps, schedule, peak = draw(st.integers(2, 300)), draw(st.sampled_from(schedules)), draw(rates)
    warmup = draw(st.integers(0, steps - 1))
    return TrainSettings(
        steps=steps,
        batch_size=1,
        learning_rate=peak,
        end_learning_rate=peak * draw(st.floats(0.0, 1.0)),
        warmup_steps=warmup,
        learning_rate_schedule=schedule,
        decay_steps=draw(st.integers(1, steps - warmup)) if schedule == "wsd" else None,
    )


@given(trainings())
def test_a_rate_rises_to_its_peak_and_never_again(settings):
    values = [learning_rate(step, settings) for step in range(settings.steps + 1)]
    warmup, peak = settings.warmup_steps, settings.learning_rate
    assert all(0 <= value <= peak * (1 + 1e-12) for value in values)
    assert all(before <= after * (1 + 1e-12) for before, after in pairwise(values[: warmup + 1]))
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(values[warmup:]))
    assert values[warmup] == pytest.approx(peak, rel=1e-12)
    end = peak if settings.learning_rate_schedule == "constant" else settings.end_learning_rate
    assert values[-1] == pytest.approx(end, rel=1e-9, abs=1e-15)
    assert learning_rate(settings.steps + 100, settings) == values[-1]


@given(trainings(("wsd",)))
def test_wsd_stays_at_its_peak_until_it_decays(settings):
    stable = range(settings.warmup_steps, settings.steps - settings.decay_steps + 1)
    assert {learning_rate(step, settings) for step in stable} == {settings.learning_rate}
    first = settings.steps - settings.decay_steps + 1
    # An end that is within rounding of the peak may be reached at once, or not.
    lower = settings.end_learning_rate < settings.learning_rate * (1 - 1e-9)
    assert (
        learning_rate(first, settings) < settings.learning_rate
        if lower
        else learning_rate(first, settings) <= settings.learning_rate
    )


@given(trainings())
def test_no_step_jumps(settings):
    """A step moves the rate by no more than its share of the fastest part: the warm-up, the cosine's middle, the root's start."""
    spans = {"cosine": settings.steps - settings.warmup_steps, "constant": 1, "wsd": settings.decay_steps}
    span, fall = spans[settings.learning_rate_schedule], settings.learning_rate - settings.end_learning_rate
    fastest = {"cosine": fall * 1.5708 / span, "constant": 0.0, "wsd": fall / span**0.5}[settings.learning_rate_schedule]
    most = max(fastest, settings.learning_rate / settings.warmup_steps if settings.warmup_steps else 0.0)
    for step in range(settings.steps):
        change = abs(learning_rate(step + 1, settings) - learning_rate(step, settings))
        assert change <= most * (1 + 1e-9) + 1e-15


@pytest.mark.parametrize("decay", [cosine_decay, square_root_decay])
@given(progress=st.floats(-2, 3), start=rates, end=rates)
def test_decays_run_between_their_ends(decay, progress, start, end):
    value = decay(progress, start, end)
    assert min(start, end) * (1 - 1e-9) <= value <= max(start, end) * (1 + 1e-9)
    if progress <= 0:
        assert value == pytest.approx(start)
    if progress >= 1:
        assert value == pytest.approx(end)
    assert decay(0.25, 1.0, 0.0) == pytest.approx({cosine_decay: 0.853553, square_root_decay: 0.5}[decay], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-6}, "end_learning_rate 1e-05 is more than learning_rate 1e-06: lower it, to 2.5e-08 say"),
        ({"decay_steps": 2}, 'decay_steps needs learning_rate_schedule = "wsd"'),
        ({"learning_rate_schedule": "wsd"}, "needs decay_steps: set it to 2"),
        ({"learning_rate_schedule": "wsd", "decay_steps": 8, "warmup_steps": 3}, "are more than steps 10: lower"),
        ({"warmup_steps": 11}, "warmup_steps 11 is more than steps 10: lower it, or raise steps"),
        ({"micro_batch_size": 2}, "batch_size 1 is not divisible by micro_batch_size 2: set that to a divisor, or leave it out"),
        ({"shard": 2}, 'shard and replicate need data_parallel = "fsdp": set that, or remove them'),
        ({"muon_learning_rate": 0.1}, 'needs optimizer = "muon"'),
        ({"ema_decay": 1.0}, "less than 1"),
    ],
)
def test_settings_that_go_with_others_are_refused_without_them(changes, message):
    with pytest.raises(ValidationError, match=message):
        TrainSettings(steps=10, batch_size=1, **changes)
