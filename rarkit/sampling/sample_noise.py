"""The randomness of sampling: a sample's noise depends on the seed and on its index, not on its batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.randomness import uniforms


def noise(seed: int, indices: ArrayLike, length: int) -> NDArray[np.float64]:
    """One uniform number in [0, 1) for each sample and step.

    Args:
        seed: any integer.
        indices: (B,) sample indices.
        length: L, the steps of one sample.

    Returns:
        (B, L) float64; row b depends on (seed, indices[b]) alone.
    """
    return uniforms(seed, "noise", 0, indices, length)
