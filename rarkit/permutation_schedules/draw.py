"""Draws the order of each sample of a training step, given the random ratio.

Shape letters: B samples, L tokens of an image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.randomness import random_bits, uniforms


def draw_orders(scan_order_L: NDArray[np.int64], ratio: float, *, seed: int, step: int, indices: ArrayLike) -> NDArray[np.int64]:
    """The order in which the tokens of each sample are visited.

    Args:
        scan_order_L: (L,) int64, the raster index visited at each step.
        ratio: the random ratio in [0, 1].
        seed: the run's seed.
        step: the training step.
        indices: (B,) the samples' indices in the global batch.

    Returns:
        (B, L) int64: with probability ``ratio`` a uniformly random permutation, else the scan order. Row b depends only on (seed,
        step, indices[b]), not on how the global batch is split.
    """
    index_B = np.asarray(indices, dtype=np.int64)
    random_B = uniforms(seed, "random or not", step, index_B, 1)[:, 0] < ratio
    orders_BL = np.tile(scan_order_L, (index_B.size, 1))
    # Sorting independent uniform keys gives a uniform permutation; 64-bit keys practically never collide.
    keys = random_bits(seed, "permutation", step, index_B[random_B], scan_order_L.size)
    orders_BL[random_B] = np.argsort(keys, axis=1, kind="stable")
    return orders_BL
