"""Zigzag: along the anti-diagonals, as in JPEG."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.scan_orders.base import ScanOrder


@final
class Zigzag(ScanOrder):
    """Anti-diagonals from the top left corner, alternately upwards and downwards, as in JPEG. Any grid."""

    name: Literal["zigzag"] = "zigzag"
    """Selects this scan order."""

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        row_L, column_L = np.divmod(np.arange(height * width, dtype=np.int64), width)
        diagonal_L = row_L + column_L
        within_L = np.where(diagonal_L % 2 == 0, column_L, row_L)
        return np.lexsort((within_L, diagonal_L)).astype(np.int64)
