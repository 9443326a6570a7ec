"""What is drawn, as plain data: charts, grids of pictures, scan orders.

Shape letters: N images, H, W, C their height, width and channels; L steps of a scan order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray


@final
class Series(NamedTuple):
    """One line of a chart; ``x`` and ``y`` are equally long, in the order of drawing. Values that are not finite are gaps."""

    label: str
    x: NDArray[Any]
    y: NDArray[Any]
    faint: bool = False
    """Drawn pale, as the raw values behind a smoothed line are."""


@final
@dataclass(frozen=True)
class Curve:
    """One chart."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_y: bool = False
    """Whether the vertical axis is logarithmic; values of 0 and below are gaps then."""


@final
@dataclass(frozen=True)
class PictureGrid:
    """Images (N, H, W, C) uint8 with 1 or 3 channels, row by row in ``columns`` columns."""

    title: str
    caption: str
    images_NHWC: NDArray[np.uint8]
    columns: int
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Scan:
    """A scan order on a grid: ``order_L`` is the raster index visited at each step."""

    name: str
    order_L: NDArray[np.int64]
    height: int
    width: int
