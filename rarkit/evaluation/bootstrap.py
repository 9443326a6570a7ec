"""Intervals by resampling.

Shape letters: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.randomness import uniforms

LOW, HIGH = 0.05, 0.95


def bootstrap(
    metric: Callable[..., float], arrays: Sequence[NDArray[Any]], *, seed: int, resamplings: int = 100, centred: bool = False
) -> tuple[float, float]:
    """The interval from 5 % to 95 % of a metric under resampling of images (Efron, "Bootstrap Methods", 1979).

    Args:
        metric: takes the arrays and gives a number.
        arrays: all of N rows; the same rows, drawn with replacement, are taken from each.
        seed: decides the draws; resampling i depends on (seed, i) alone.
        resamplings: how many; at least 1.
        centred: move the interval so that its resamplings' mean comes to lie on the metric's value. For metrics that repeated rows
            bias, such as the Fréchet distance: the interval then tells their spread, and says nothing of their bias.

    Returns:
        (low, high).
    """
    assert resamplings >= 1
    assert arrays
    assert len({len(array) for array in arrays}) == 1, [len(array) for array in arrays]
    count = len(arrays[0])
    values = []
    for index in range(resamplings):
        rows_N = (uniforms(seed, "bootstrap", index, np.arange(count), 1)[:, 0] * count).astype(np.int64)
        values.append(metric(*(array[rows_N] for array in arrays)))
    low, high = np.quantile(values, [LOW, HIGH])
    moved = metric(*arrays) - np.mean(values) if centred else 0.0
    return float(low + moved), float(high + moved)
