"""Raster: row by row."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.scan_orders.base import ScanOrder


@final
class Raster(ScanOrder):
    """Row by row from the top, each from left to right: the usual order of autoregressive image models. Any grid."""

    name: Literal["raster"] = "raster"
    """Selects this scan order."""

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        return np.arange(height * width, dtype=np.int64)
