"""Intervals from 5 % to 95 %: where a number would fall with other samples, as many and of the same classes; real images stay.

``benchmarks/intervals.py`` measures how often they hold the number's mean over other samples. Shape letters: N rows, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.randomness import uniforms

Bounds = tuple[float, float] | tuple[None, None]
"""Low and high end; both None where there are too few rows for an interval."""
QUANTILE = 1.6448536269514722
"""The 95 % quantile of the standard normal distribution."""
FEWEST = 5
"""Rows below which an interval would be too narrow too often."""
TOO_FEW = "there are too few samples"
ALIKE = "nearly all samples of a class are alike, and the few others decide"
"""Why a number has no interval."""


def rows_that_count(amounts_N: NDArray[np.floating[Any]], usual: float) -> float:
    """The sum of what each row adds to a spread, as a multiple of the largest amount, or of ``usual`` if that is larger; 0 to N.

    Where it is below ``FEWEST``, a few rows decide how wide an interval is, and other samples may have more of them or none: such
    intervals hold far too seldom.

    Args:
        amounts_N: 0 or more: an entropy, or a squared distance to the mean.
        usual: what a row adds that has a spread, though there may be none among these.
    """
    largest = max(usual, float(amounts_N.max()))
    return float(amounts_N.sum()) / largest if largest > 0 else 0.0


def squared_distances(features_NF: NDArray[np.floating[Any]], labels_N: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The squared distance of each row to the mean of its class, (N,)."""
    distances_N = np.empty(len(features_NF))
    for label in np.unique(labels_N):
        chosen = labels_N == label
        rows = np.asarray(features_NF[chosen], np.float64)
        distances_N[chosen] = ((rows - rows.mean(0)) ** 2).sum(1)
    return distances_N


def halves_interval(
    metric: Callable[..., float],
    arrays: Sequence[NDArray[Any]],
    labels_N: NDArray[np.integer[Any]],
    *,
    seed: int,
    splits: int,
    per_class: int = 2,
    lowest: float = -math.inf,
) -> Bounds:
    """The metric plus and minus 1.645 standard deviations, which are estimated from random halves of the rows.

    The rows are split into two halves again and again, each class as evenly as it can be, and the metric a and b of both halves
    taken. The variance of the metric is estimated as that of (a − b)/2, less half that of (a + b)/2, but at most a quarter less.

    The bootstrap does not serve here: it repeats rows, and pairs of equal rows bias whatever depends on pairs (diversity, the
    Fréchet distance of few images) by more than the width of its interval. Halves repeat nothing. A bias that depends on the number
    of rows is the same in both halves, and leaves their difference alone. If all of the metric is linear in the rows' distribution,
    (a − b)/2 has the metric's own variance. What is quadratic enters its variance doubled, and that of (a + b)/2 once; subtracting
    all of the latter would be unbiased, but too uncertain where little is linear, as in the Fréchet distance of very good samples.

    Args:
        metric: takes the arrays and gives a number.
        arrays: all of N rows, which stay together.
        labels_N: the class of each row; how many there are of each is taken as given.
        seed: decides the halves; split i depends on (seed, i) alone.
        splits: how many times; at least 1.
        per_class: how many rows a class must have at least for halves that the metric can take.
        lowest: the least value that the metric can have.

    Returns:
        (low, high), which hold the metric's value; None for both if a class has too few rows.
    """
    assert splits >= 1
    assert all(len(array) == len(labels_N) for array in arrays), [len(array) for array in arrays]
    counts = np.unique(labels_N, return_counts=True)[1]
    if len(labels_N) < 4 or counts.min() < per_class:
        return None, None
    pairs = [
        [metric(*(array[rows] for array in arrays)) for rows in halves] for halves in _halves(np.asarray(labels_N), seed, splits)
    ]
    a, b = np.array(pairs).T
    of_difference = float((((a - b) / 2) ** 2).mean())
    of_mean = float(((a + b) / 2).var())
    reach = QUANTILE * math.sqrt(max(of_difference - of_mean / 2, 0.75 * of_difference))
    value = metric(*arrays)
    return max(lowest, value - reach), value + reach


def _halves(labels_N: NDArray[np.integer[Any]], seed: int, splits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of two halves, ascending. Every other row goes to the same half, in random order within each class."""
    count = len(labels_N)
    for split in range(splits):
        chance = uniforms(seed, "halves", split, np.arange(count + 1), 1)[:, 0]
        half_N = np.empty(count, np.int64)
        half_N[np.lexsort((chance[:count], labels_N))] = (np.arange(count) + (chance[count] < 0.5)) % 2
        yield np.flatnonzero(half_N == 0), np.flatnonzero(half_N == 1)


def mean_interval(values_N: NDArray[np.floating[Any]]) -> Bounds:
    """The interval of the mean of independent numbers: 1.645 standard errors to each side."""
    if len(values_N) < FEWEST:
        return None, None
    mean, error = float(values_N.mean()), float(values_N.std(ddof=1)) / math.sqrt(len(values_N))
    return mean - QUANTILE * error, mean + QUANTILE * error


def share_interval(hits_N: NDArray[np.bool_], labels_N: NDArray[np.integer[Any]]) -> Bounds:
    """The interval of the share of hits, after Wilson ("Probable inference", 1927): not empty where all rows hit or none.

    Rows are drawn class by class, which varies less than drawing from all, the more the classes' shares differ: Wilson's number of
    rows is that of independent ones of the same variance (Kish's effective sample size).
    """
    count = len(hits_N)
    if count < FEWEST:
        return None, None
    _, class_N, sizes = np.unique(labels_N, return_inverse=True, return_counts=True)
    shares = np.bincount(class_N, hits_N) / sizes
    share, effective = float(hits_N.mean()), float(count)
    if sizes.min() > 1:
        variance = float(((sizes / count) ** 2 * shares * (1 - shares) / (sizes - 1)).sum())
        if variance > 0:
            effective = share * (1 - share) / variance
    squared = QUANTILE**2
    centre = (share + squared / (2 * effective)) / (1 + squared / effective)
    reach = QUANTILE / (1 + squared / effective) * math.sqrt(share * (1 - share) / effective + squared / (4 * effective**2))
    # Rounding may leave the share of all or none just outside.
    return min(share, max(0.0, centre - reach)), max(share, min(1.0, centre + reach))
