"""Spiral: ring by ring along the border of the remaining grid."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.scan_orders.base import ScanOrder


@final
class Spiral(ScanOrder):
    """Counter-clockwise rings, starting downwards at the top left corner and moving inwards, or that path reversed. Any grid."""

    name: Literal["spiral"] = "spiral"
    """Selects this scan order."""
    direction: Literal["inward", "outward"] = "inward"
    """``"inward"`` runs from the top left corner to the centre, ``"outward"`` from the centre to the corner."""

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        remaining = np.arange(height * width, dtype=np.int64).reshape(height, width)
        sides = []
        while remaining.size:
            # Take the left column, top to bottom; turning the rest clockwise makes the next side the left column.
            sides.append(remaining[:, 0])
            remaining = np.rot90(remaining[:, 1:], -1)
        inward_L = np.concatenate(sides)
        return inward_L if self.direction == "inward" else inward_L[::-1].copy()
