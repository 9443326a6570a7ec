"""What a report shows, as plain data: whoever renders it needs neither the store nor the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray


@final
@dataclass(frozen=True)
class Metric:
    """One number beside its yardsticks. ``better`` is ``"higher"``, ``"lower"`` or empty."""

    name: str
    value: float
    low: float | None
    high: float | None
    unit: str
    better: str
    explanation: str
    yardsticks: tuple[tuple[str, float], ...]


@final
@dataclass(frozen=True)
class Series:
    """One line of a chart; ``x`` and ``y`` are equally long, not-a-numbers in ``y`` are gaps."""

    label: str
    x: NDArray[Any]
    y: NDArray[Any]


@final
@dataclass(frozen=True)
class Curve:
    """One chart."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


@final
@dataclass(frozen=True)
class PictureGrid:
    """Images (N, H, W, C) uint8 with 1 or 3 channels, row by row in ``columns`` columns."""

    title: str
    caption: str
    images_NHWC: NDArray[np.uint8]
    columns: int
    row_labels: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Scan:
    """A scan order on a grid: ``order_L`` is the raster index visited at each step."""

    name: str
    order_L: NDArray[np.int64]
    height: int
    width: int


@final
@dataclass(frozen=True)
class StageRow:
    """What became of one stage."""

    name: str
    action: str
    seconds: float
    fingerprint: str
    note: str


@final
@dataclass(frozen=True)
class RunReport:
    """Everything on the page. Empty parts are left out of it."""

    title: str
    recipe_name: str
    recipe_toml: str
    command: str
    when: str
    seconds: float
    machine: str
    stages: tuple[StageRow, ...] = ()
    grids: tuple[PictureGrid, ...] = ()
    curves: tuple[Curve, ...] = ()
    scan: Scan | None = None
    metrics: tuple[Metric, ...] = ()
    notes: tuple[str, ...] = ()
