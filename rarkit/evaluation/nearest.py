"""The nearest of many images to a few, which shows whether a model copies.

Shape letters: Q images that neighbours are looked for, N of a block to look in, K neighbours, F features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray


@final
class Neighbours(NamedTuple):
    """The nearest first; of equally near ones, the one that was seen first."""

    rows_QK: NDArray[np.int64]
    distances_QK: NDArray[np.float64]
    """Euclidean."""


def nearest(queries_QF: NDArray[np.floating[Any]], blocks: Iterable[NDArray[np.floating[Any]]], k: int) -> Neighbours:
    """The ``k`` nearest rows of all blocks (N, F) together, or all rows where there are fewer.

    Distances are sums of squared differences in float64, so that of a copy is exactly 0. Memory is bounded by a block.
    """
    queries = np.asarray(queries_QF, np.float64)
    rows_QK, squared_QK = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0))
    start = 0
    for block in blocks:
        block_NF = np.asarray(block, np.float64)
        squared_QN = np.stack([((block_NF - query_F) ** 2).sum(1) for query_F in queries])
        rows_QN = np.broadcast_to(np.arange(start, start + len(block_NF)), squared_QN.shape)
        squared, rows = np.concatenate([squared_QK, squared_QN], 1), np.concatenate([rows_QK, rows_QN], 1)
        order_QK = np.argsort(squared, 1, kind="stable")[:, :k]
        squared_QK, rows_QK = np.take_along_axis(squared, order_QK, 1), np.take_along_axis(rows, order_QK, 1)
        start += len(block_NF)
    return Neighbours(rows_QK, np.sqrt(squared_QK))
