"""What a report shows, as plain data: whoever renders it needs neither the store nor the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray


@final
@dataclass(frozen=True)
class Metric:
    """One number beside its yardsticks: the same number of other sets of images.

    ``low`` and ``high`` are the ends of its interval, or None; ``better`` is ``"higher"``, ``"lower"`` or empty.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    unit: str
    better: str
    explanation: str
    yardsticks: tuple[tuple[str, float], ...]


@final
class Series(NamedTuple):
    """One line of a chart; ``x`` and ``y`` are equally long and in drawing order, what is not finite is a gap."""

    label: str
    x: NDArray[Any]
    y: NDArray[Any]
    faint: bool = False
    """Drawn pale, as what lies behind a smoothed line is."""


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


@final
@dataclass(frozen=True)
class StageRow:
    """What became of one stage: ``action`` is ``"ran"`` or ``"cached"``, ``note`` says why."""

    name: str
    action: str
    seconds: float
    fingerprint: str
    note: str


@final
@dataclass(frozen=True)
class RunReport:
    """Everything on the page. Empty parts are left out of it.

    ``notes`` are shown on top; ``rehearsal`` puts there that the numbers do not count.
    """

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
    rehearsal: bool = False
