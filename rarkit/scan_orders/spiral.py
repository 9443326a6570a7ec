"""Spiral: round and round along the border of what is left."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.scan_orders.base import ScanOrder


@final
class Spiral(ScanOrder):
    """Counter-clockwise rings, from the top left corner downwards and inwards, or the same path backwards. Any grid."""

    name: Literal["spiral"] = "spiral"
    """Chooses this order."""
    direction: Literal["inward", "outward"] = "inward"
    """From the top left corner to the centre, or from the centre out."""

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        self.check_grid(height, width)
        left = np.arange(height * width, dtype=np.int64).reshape(height, width)
        sides = []
        while left.size:
            # The left column, downwards; then the rest turned clockwise has its next side where the left column was.
            sides.append(left[:, 0])
            left = np.rot90(left[:, 1:], -1)
        inward_L = np.concatenate(sides)
        return inward_L if self.direction == "inward" else inward_L[::-1].copy()
