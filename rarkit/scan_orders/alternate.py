"""Alternate: row by row in alternating directions."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.scan_orders.base import ScanOrder


@final
class Alternate(ScanOrder):
    """Row by row from the top, alternately left to right and right to left (boustrophedon). Any grid."""

    name: Literal["alternate"] = "alternate"
    """Selects this scan order."""

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        index_HW = np.arange(height * width, dtype=np.int64).reshape(height, width)
        index_HW[1::2] = index_HW[1::2, ::-1].copy()
        return index_HW.ravel()
