"""Turns a random ratio into permutations, one for each sample.

Shape letters: B samples, L tokens of an image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.randomness import random_bits, uniforms


def draw_orders(scan_order_L: NDArray[np.int64], ratio: float, *, seed: int, step: int, indices: ArrayLike) -> NDArray[np.int64]:
    """The order in which each sample of a training step is visited.

    Args:
        scan_order_L: (L,) int64, the raster index visited at each step.
        ratio: the random ratio in [0, 1].
        seed: the run's seed.
        step: the training step.
        indices: (B,) the samples' indices in the global batch.

    Returns:
        (B, L) int64: with probability ``ratio`` a uniformly random permutation, else the scan order. Row b depends on (seed, step,
        indices[b]) alone, however the global batch is split.
    """
    index_B = np.asarray(indices, dtype=np.int64)
    random_B = uniforms(seed, "random or not", step, index_B, 1)[:, 0] < ratio
    orders_BL = np.tile(scan_order_L, (index_B.size, 1))
    # The order of independent uniform keys is a uniform permutation; with 64 bits each, equal keys do not happen.
    keys = random_bits(seed, "permutation", step, index_B[random_B], scan_order_L.size)
    orders_BL[random_B] = np.argsort(keys, axis=1, kind="stable")
    return orders_BL
