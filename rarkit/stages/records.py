"""Numbers as plain records: name, value, interval, unit, direction, explanation, yardsticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from rarkit.evaluation import bootstrap
from rarkit.randomness import derived_seed
from rarkit.stages.base import Work

Arrays = tuple[NDArray[Any], ...]


def measured(
    work: Work,
    name: str,
    metric: Callable[..., float],
    own: Arrays,
    others: Mapping[str, Arrays],
    *,
    centred: bool = False,
    **about: str,
) -> dict[str, Any]:
    """A metric of the samples with its bootstrap interval (5 % to 95 %), and of each yardstick set."""
    assert work.recipe.evaluate is not None
    low = high = None
    if work.recipe.evaluate.bootstrap:
        seed = derived_seed(work.recipe.seed, "bootstrap")
        low, high = bootstrap(metric, own, seed=seed, resamplings=work.recipe.evaluate.bootstrap, centred=centred)
    yardsticks = {other: metric(*arrays) for other, arrays in others.items()}
    return record(name, metric(*own), low, high, yardsticks=yardsticks, **about)


def record(
    name: str,
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    unit: str = "",
    better: str = "",
    explanation: str = "",
    yardsticks: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One number; what is left out is None or empty."""
    return {
        "name": name,
        "value": float(value),
        "low": low,
        "high": high,
        "unit": unit,
        "better": better,
        "explanation": explanation,
        "yardsticks": dict(yardsticks or {}),
    }
