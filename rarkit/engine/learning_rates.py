"""The learning rate over a training: warm-up, then one of three shapes. Pure functions of the step; imports no torch."""

from __future__ import annotations

import math

from rarkit.engine.settings import TrainSettings
from rarkit.registry.inputs import whole


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The learning rate of a step, counted from 0: linear from 0 to ``learning_rate``, then what ``learning_rate_schedule`` says.

    Raises:
        UserError: the step is not a whole number from 0.
    """
    whole("the step", step)
    base, end, warmup, steps = settings.learning_rate, settings.end_learning_rate, settings.warmup_steps, settings.steps
    if step < warmup:
        return base * step / warmup
    if settings.learning_rate_schedule == "cosine":
        return cosine_decay((step - warmup) / max(1, steps - warmup), base, end)
    decay = settings.decay_steps
    if decay is None or step <= steps - decay:
        return base
    return square_root_decay((step - (steps - decay)) / decay, base, end)


def cosine_decay(progress: float, start: float, end: float) -> float:
    """Half a cosine, from ``start`` at progress 0 to ``end`` at 1; beyond them the value there."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * _within(progress)))


def square_root_decay(progress: float, start: float, end: float) -> float:
    """1 − √progress, from ``start`` at progress 0 to ``end`` at 1; beyond them the value there.

    Of the cool-downs that Hägele et al. compare (arXiv 2405.18392, section 4), the one with the lowest loss.
    """
    return end + (start - end) * (1.0 - math.sqrt(_within(progress)))


def _within(progress: float) -> float:
    return min(1.0, max(0.0, progress))
