"""The Hilbert curve as a scan order: a minimal but complete rarkit plugin, and a template for others."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit import ScanOrder, hookimpl

requires_rarkit = ">=0.1,<0.2"


@final
class Hilbert(ScanOrder):
    """Hilbert curve: each cell is next to the previous one. Square grids whose side is a power of two."""

    name: Literal["hilbert"] = "hilbert"
    """Selects this scan order."""

    def requirement(self, height: int, width: int) -> str | None:
        if height == width and height & (height - 1) == 0:
            return None
        return "it needs a square grid whose side is a power of two (1×1, 2×2, 4×4, 8×8, 16×16, …)"

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        step_HW = np.zeros((1, 1), dtype=np.int64)
        # The curve runs from the top left to the top right corner. Four small curves make a large one, down the left side and up
        # the right; the first and last are mirrored, so that each starts next to the end of the previous one.
        while (side := len(step_HW)) < height:
            count = side * side
            top = np.hstack([step_HW.T, np.flip(step_HW.T) + 3 * count])
            bottom = np.hstack([step_HW + count, step_HW + 2 * count])
            step_HW = np.vstack([top, bottom])
        return np.argsort(step_HW.ravel()).astype(np.int64)


@hookimpl
def rarkit_scan_orders() -> list[type[ScanOrder]]:
    """Adds the Hilbert curve to rarkit."""
    return [Hilbert]
