"""Scan orders: the order in which the cells of a grid are visited."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import GridError
from rarkit.registry.bounds import MOST_TOKENS
from rarkit.registry.component import Component
from rarkit.registry.contract import broken, checked
from rarkit.registry.inputs import is_whole

SHOWN_GRIDS = ((8, 8), (7, 7), (9, 9), (6, 8), (1, 16), (1, 1))
"""Of the grids that notebooks show an order on: the first that it supports."""


class ScanOrder(Component):
    """A bijection from step to raster index, for every grid that the order supports.

    The cell in row r and column c of a grid of width W has raster index r·W + c. Subclasses define ``order`` and, if they do not
    support every grid, ``requirement``. The base class checks the grid before each call of ``order``, and the order after it.
    """

    kind: ClassVar[str] = "scan_orders"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, order=_checked_order)

    @abstractmethod
    def order(self, height: int, width: int) -> NDArray[np.int64]:
        """The raster index visited at each step.

        Returns:
            (height·width,) int64, contiguous, a permutation of 0 … height·width − 1.

        Raises:
            GridError: the order does not support this grid.
            PluginError: the subclass returned anything else.
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
    def _repr_html_(self) -> str:
        """The path on a small grid, for notebooks."""
        from rarkit.rendering.notebook import picture, shown
        from rarkit.rendering.pictures import scan_order_image

        grid = next((grid for grid in SHOWN_GRIDS if self.requirement(*grid) is None), None)
        if grid is None:
            return str(shown(repr(self)))
        return str(
            picture(scan_order_image(self.order(*grid), *grid), f"scan order {self.name} on a grid of {grid[0]} × {grid[1]}")
        )

    @final
    def check_grid(self, height: int, width: int) -> None:
        """Raises GridError, with the reason and the cure, if the order does not support this grid."""
        if not (is_whole(height) and is_whole(width)):
            raise GridError(f"a grid has whole numbers of rows and columns, but this one is {height!r}×{width!r}")
        if height < 1 or width < 1:
            raise GridError(f"a grid must have at least one row and one column, but this one is {height}×{width}")
        if height * width > MOST_TOKENS:
            raise GridError(
                f"a grid of {height:,}×{width:,} has more than {MOST_TOKENS:,} tokens. Choose smaller images, or a [tokenizer] "
                "with a coarser grid."
            )
        requirement = self.requirement(height, width)
        if requirement is not None:
            raise GridError(
                f"scan order {self.name!r} does not support a grid of {height}×{width}: {requirement}. "
                "Choose another [scan_order], or a [tokenizer] with another grid."
            )


def _checked_order(part: ScanOrder, order: Callable[[int, int], Any], height: int, width: int) -> NDArray[np.int64]:
    part.check_grid(height, width)
    order_L, length = order(height, width), height * width
    grid = f"on a grid of {height}×{width}"
    if not isinstance(order_L, np.ndarray) or order_L.dtype != np.int64 or order_L.shape != (length,):
        returned = f"{order_L.dtype} {order_L.shape}" if isinstance(order_L, np.ndarray) else type(order_L).__name__
        raise broken(part, f"returns {returned} {grid}; an order is an array ({length},) of int64")
    # torch.from_numpy refuses negative strides, as of a reversed view.
    if not order_L.flags.c_contiguous:
        raise broken(part, f"returns a view that is not contiguous {grid}: return .copy() of it")
    outside = order_L[(order_L < 0) | (order_L >= length)]
    if outside.size:
        raise broken(part, f"visits cell {outside[0]} {grid}, whose cells are 0 to {length - 1}")
    visits_L = np.bincount(order_L, minlength=length)
    if (visits_L != 1).any():
        often, never = int(visits_L.argmax()), int(visits_L.argmin())
        raise broken(part, f"visits cell {often} {visits_L[often]} times and cell {never} never {grid}; each must be visited once")
    return order_L
