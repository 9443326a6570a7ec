"""The rows and dropped labels of a training step, as functions of (seed, step) only.

Shape letters: B batch, L tokens of an image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rarkit.randomness import derived_seed, uniforms
from rarkit.registry.inputs import probability as checked_probability
from rarkit.registry.inputs import whole


def rows_of_step(seed: int, step: int, batch_size: int, count: int) -> NDArray[np.int64]:
    """The rows in the batch of a step: (batch_size,) int64 in [0, count).

    Each epoch is a new permutation of all rows, and epochs follow each other without a gap: every row is seen equally often, and a
    batch can span the end of one epoch and the start of the next.

    Args:
        seed: the run's seed, any integer.
        step: the training step, from 0.
        batch_size: rows per step, at least 1.
        count: rows in all, at least 1.

    Raises:
        UserError: an argument is out of range.
    """
    whole("the step", step)
    whole("batch_size", batch_size, 1)
    whole("count", count, 1)
    place_B = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epoch_B, within_B = np.divmod(place_B, count)
    rows_B = np.empty_like(place_B)
    for epoch in np.unique(epoch_B):
        of_epoch = epoch_B == epoch
        rows_B[of_epoch] = _epoch(seed, int(epoch), count)[within_B[of_epoch]]
    return rows_B


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(derived_seed(seed, "epoch", epoch))).permutation(count)


def dropped_labels(seed: int, step: int, batch_size: int, probability: float) -> NDArray[np.bool_]:
    """The samples of a step's global batch that are trained without their class: (batch_size,) bool.

    Args:
        seed: the run's seed, any integer.
        step: the training step, from 0.
        batch_size: samples of the global batch.
        probability: of each sample to lose its class; 0.1 in the released training.

    Raises:
        UserError: an argument is out of range.
    """
    whole("the step", step)
    whole("batch_size", batch_size)
    checked_probability("the probability of dropping a class", probability)
    dropped: NDArray[np.bool_] = uniforms(seed, "class dropout", step, np.arange(batch_size), 1)[:, 0] < probability
    return dropped
