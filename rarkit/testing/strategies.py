"""Hypothesis strategies for the inputs of parts."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray


def grids(largest: int = 12) -> st.SearchStrategy[tuple[int, int]]:
    """Height and width of a grid, each from 1 to ``largest``."""
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


def orders(length: int) -> st.SearchStrategy[NDArray[np.int64]]:
    """Orders of ``length`` cells: permutations of 0 … length − 1, (length,) int64."""
    return st.permutations(range(length)).map(lambda order: np.array(order, dtype=np.int64))


def images(height: int, width: int, channels: int, most: int = 6) -> st.SearchStrategy[NDArray[np.uint8]]:
    """Batches of 1 to ``most`` images, (B, height, width, channels) uint8."""
    return st.integers(1, most).flatmap(lambda count: hnp.arrays(np.uint8, (count, height, width, channels)))
