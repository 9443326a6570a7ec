"""Scan orders: the order in which the cells of a grid are visited."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import GridError
from rarkit.registry.component import Component


class ScanOrder(Component):
    """A bijection from step to raster index, for every grid that the order supports.

    The cell in row r and column c of a grid of width W has raster index r·W + c. Subclasses define ``order`` and, if they do not
    support every grid, ``requirement``.
    """

    kind: ClassVar[str] = "scan_orders"

    @abstractmethod
    def order(self, height: int, width: int) -> NDArray[np.int64]:
        """The raster index visited at each step.

        Returns:
            (height·width,) int64, contiguous, a permutation of 0 … height·width − 1.

        Raises:
            GridError: the order does not support this grid (call ``check_grid`` to raise it).
        """

    def requirement(self, height: int, width: int) -> str | None:
        """None if the order supports this grid (both sides ≥ 1), else a clause such as ``"it needs an even number of rows"``."""
        return None

    @final
    def rank(self, height: int, width: int) -> NDArray[np.int64]:
        """The inverse of ``order``: the step at which each raster index is visited, (height·width,) int64."""
        order_L = self.order(height, width)
        rank_L = np.empty_like(order_L)
        rank_L[order_L] = np.arange(order_L.size)
        return rank_L

    @final
    def check_grid(self, height: int, width: int) -> None:
        """Raises GridError, with the reason and the cure, if the order does not support this grid."""
        if height < 1 or width < 1:
            raise GridError(f"a grid must have at least one row and one column, but this one is {height}×{width}")
        requirement = self.requirement(height, width)
        if requirement is not None:
            raise GridError(
                f"scan order {self.name!r} does not support a grid of {height}×{width}: {requirement}. "
                "Choose another [scan_order], or a [tokenizer] with another grid."
            )
