"""The charts of a run: everything that its training logged, and the guidance of its samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from rarkit.evaluation.bits_per_token import BitsPerToken
from rarkit.evaluation.metric import TRAINING_IMAGES
from rarkit.evaluation.record import MetricRecord
from rarkit.recipe.experiment import Experiment
from rarkit.rendering.figures import Curve, Series
from rarkit.stages.held_out import HeldOutBits

STEP, LOSS = "step", "loss"


@final
class Look(NamedTuple):
    """How a column of the training log is drawn."""

    title: str
    y_label: str
    factor: float = 1.0
    noisy: bool = False
    """Whether it changes so much between steps that a mean is drawn over it."""
    log_y: bool = False


LOOKS = {
    LOSS: Look("Loss", "bits per token", 1 / math.log(2), noisy=True),
    "accuracy": Look("Accuracy", "share of tokens predicted, in training batches", noisy=True),
    "random_ratio": Look("Random ratio", "share of random permutations"),
    "learning_rate": Look("Learning rate", "learning rate"),
    "gradient_norm": Look("Gradient norm", "norm before clipping, logarithmic", noisy=True, log_y=True),
}
"""The columns that are known, in the order of their charts. Others follow under their own names."""


def training_curves(
    log: Mapping[str, NDArray[Any]],
    metrics: Sequence[MetricRecord] = (),
    *,
    held_out: bool = True,
    measured: Sequence[HeldOutBits] = (),
) -> list[Curve]:
    """A chart for each column of the training log, by its name; the loss beside the trained model's bits per token.

    Args:
        log: columns of equal length, one of them ``step``; empty where nothing was trained.
        metrics: of the run. Its bits per token are points at the last step.
        held_out: whether the dataset has held-out images; if not, bits per token are of training images alone.
        measured: bits per token of held-out images that were measured during the training.
    """
    if not log or not len(log[STEP]):
        return []
    columns = [*(name for name in LOOKS if name in log), *(name for name in log if name not in LOOKS and name != STEP)]
    beside = [*_measured(measured), *_evaluated(log[STEP][-1], metrics, held_out)]
    return [curve(name, log, _look(name), beside if name == LOSS else []) for name in columns]


def _look(name: str) -> Look:
    words = name.replace("_", " ")
    return LOOKS.get(name, Look(words.capitalize(), words))


def curve(name: str, log: Mapping[str, NDArray[Any]], look: Look, beside: Sequence[Series]) -> Curve:
    """The chart of a column of a log, with other series beside it."""
    step, values = log[STEP], log[name] * look.factor
    window = max(1, len(step) // 50) if look.noisy else 1
    series = [Series("each step", step, values, faint=window > 1)]
    if window > 1:
        middle = step[window // 2 : len(step) - (window - 1) // 2]
        series.append(Series(f"mean of {window}", middle, np.convolve(values, np.ones(window) / window, mode="valid")))
    return Curve(look.title, "step", look.y_label, (*series, *beside), log_y=look.log_y)


def _measured(entries: Sequence[HeldOutBits]) -> list[Series]:
    """The bits per token of held-out images at the steps after which they were measured."""
    random = [(entry.step, bits) for entry in entries if (bits := entry.held_out_bits_random_orders) is not None]
    points = {
        "held-out images": [(entry.step, entry.held_out_bits) for entry in entries],
        "held-out images, random orders": random,
    }
    return [
        Series(label, np.array([step for step, _ in series]), np.array([bits for _, bits in series]))
        for label, series in points.items()
        if series
    ]


def _evaluated(last: int, metrics: Sequence[MetricRecord], held_out: bool) -> list[Series]:
    """The trained model's bits per token as points at the last step."""
    measured = next((metric for metric in metrics if metric.name == BitsPerToken.name), None)
    if measured is None:
        return []
    points = {"held-out images, trained model": measured.value} if held_out else {}
    if TRAINING_IMAGES in measured.yardsticks:
        points["training images, trained model"] = measured.yardsticks[TRAINING_IMAGES]
    return [Series(label, np.array([last]), np.array([value])) for label, value in points.items()]


def guidance_curve(experiment: Experiment) -> list[Curve]:
    """The scale of guidance at each token; empty where the recipe does not sample."""
    sample = experiment.recipe.sample
    if sample is None:
        return []
    steps = np.arange(experiment.config.seq_len)
    scales = np.array([sample.guidance.scale_at(int(step), len(steps)) for step in steps])
    return [Curve("Guidance", "token", "scale", (Series(sample.guidance.name, steps, scales),))]
