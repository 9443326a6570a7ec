"""Z-curve: Morton order."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.scan_orders.base import ScanOrder


@final
class ZCurve(ScanOrder):
    """Quadrant by quadrant, recursively (Morton 1966). Square grids whose side is a power of two."""

    name: Literal["z_curve"] = "z_curve"
    """Selects this scan order."""

    def requirement(self, height: int, width: int) -> str | None:
        if height == width and height & (height - 1) == 0:
            return None
        return "it needs a square grid whose side is a power of two (1×1, 2×2, 4×4, 8×8, 16×16, …)"

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        row_L, column_L = np.divmod(np.arange(height * width, dtype=np.int64), width)
        code_L = np.zeros_like(row_L)
        for bit in range(height.bit_length()):
            code_L |= (row_L >> bit & 1) << (2 * bit + 1) | (column_L >> bit & 1) << 2 * bit
        return np.argsort(code_L).astype(np.int64)
