"""The Hilbert curve as a scan order: the smallest whole plugin of rarkit, and a template for others."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit import ScanOrder, hookimpl


@final
class Hilbert(ScanOrder):
    """Hilbert curve: each cell beside the one before it, near cells near in time. Square grids, side a power of two."""

    name: Literal["hilbert"] = "hilbert"
    """Chooses this order."""

    def requirement(self, height: int, width: int) -> str | None:
        if height == width and height & (height - 1) == 0:
            return None
        return "it serves square grids whose side is a power of two (1×1, 2×2, 4×4, 8×8, 16×16, …)"

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        self.check_grid(height, width)
        step_HW = np.zeros((1, 1), dtype=np.int64)
        # The curve runs from the top left to the top right corner. Four smaller ones make a larger one: down the left side, up
        # the right, the first and the last mirrored so that each begins beside the end of the one before.
        while (side := len(step_HW)) < height:
            count = side * side
            top = np.hstack([step_HW.T, np.flip(step_HW.T) + 3 * count])
            bottom = np.hstack([step_HW + count, step_HW + 2 * count])
            step_HW = np.vstack([top, bottom])
        return np.argsort(step_HW.ravel()).astype(np.int64)


@hookimpl
def rarkit_scan_orders() -> list[type[ScanOrder]]:
    """Brings the Hilbert curve to rarkit."""
    return [Hilbert]
