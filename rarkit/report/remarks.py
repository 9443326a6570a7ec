"""What a reader should know about the numbers of a run before using them."""

from __future__ import annotations

from collections.abc import Sequence

from rarkit.evaluation.bits_per_token import BitsPerToken
from rarkit.evaluation.metric import TRAINING_IMAGES
from rarkit.evaluation.record import MetricRecord
from rarkit.rendering.numbers import number

NEGLIGIBLE = 0.05
"""A share of the held-out images' bits per token; a smaller gap to the training images is not worth a remark."""


def remarks(metrics: Sequence[MetricRecord]) -> tuple[str, ...]:
    """Whole sentences; none where there is nothing to remark."""
    return tuple(
        remark
        for metric in metrics
        for remark in (_overfitting(metric) if metric.name == BitsPerToken.name else "", _without_interval(metric))
        if remark
    )


def _without_interval(metric: MetricRecord) -> str:
    return f"{metric.name} has no interval from 5 % to 95 %: {metric.no_interval}." if metric.no_interval else ""


def _overfitting(held_out: MetricRecord) -> str:
    training = held_out.yardsticks.get(TRAINING_IMAGES)
    # A value within the interval may differ by chance.
    certain = held_out.value if held_out.low is None else held_out.low
    if training is None or not training < min(certain, (1 - NEGLIGIBLE) * held_out.value):
        return ""
    return (
        f"Training and held-out likelihood diverge: the model needs {number(training)} bits per token for its training images, but "
        f"{number(held_out.value)} for images that it has not seen. Some of what it learned holds for the training images only "
        "(overfitting). More data, more dropout or fewer steps narrow the gap."
    )
