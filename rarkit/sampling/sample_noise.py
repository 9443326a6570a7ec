"""The noise of sampling: it depends on the seed and the sample's index, not on the batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.randomness import uniforms
from rarkit.registry.inputs import sample_indices


def noise(seed: int, indices: ArrayLike, length: int) -> NDArray[np.float64]:
    """One uniform number in [0, 1) per sample and step.

    Args:
        seed: any integer.
        indices: (B,) sample indices, whole numbers from 0.
        length: L, steps per sample.

    Returns:
        (B, L) float64; row b depends only on (seed, indices[b]).

    Raises:
        UserError: an index is not a whole number from 0.
    """
    return uniforms(seed, "noise", 0, sample_indices(indices), length)
