"""Subsample: one cell of each quadrant in turn."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.scan_orders.base import ScanOrder


@final
class Subsample(ScanOrder):
    """One cell of each quadrant in turn (top left, top right, bottom left, bottom right), each in raster order. Even sides only."""

    name: Literal["subsample"] = "subsample"
    """Selects this scan order."""

    def requirement(self, height: int, width: int) -> str | None:
        return None if height % 2 == width % 2 == 0 else "it needs an even number of rows and of columns"

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        index_HW = np.arange(height * width, dtype=np.int64).reshape(height, width)
        # (quadrant row, row, quadrant column, column): the quadrant varies fastest.
        quadrants = index_HW.reshape(2, height // 2, 2, width // 2)
        return quadrants.transpose(1, 3, 0, 2).ravel()
