"""Charts as inline SVG: lines with axes, scan orders as paths, metrics on a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from rarkit.report.data import Curve, Metric, Scan, Series
from rarkit.report.pictures import along

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 14, 44


@final
@dataclass(frozen=True)
class Axis:
    """A range of values on a range of pixels."""

    low: float
    high: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """About five round values within the range."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis(values: NDArray[Any], start: float, stop: float) -> Axis:
    """An axis over all finite values; one value alone gets some room on both sides."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        room = 0.5 * abs(low) or 0.5
        low, high = low - room, high + room
    return Axis(low, high, start, stop)


def thinned(series: Series, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The extremes of each of ``columns`` stretches, so that thousands of points stay a line and lose no spike."""
    if len(series.x) <= 2 * columns:
        return series.x, series.y
    keep: set[int] = set()
    for part in np.array_split(np.arange(len(series.x)), columns):
        finite = part[np.isfinite(series.y[part])]
        chosen = finite if finite.size else part
        keep |= {int(chosen[np.argmin(series.y[chosen])]), int(chosen[np.argmax(series.y[chosen])])}
    index = np.array(sorted(keep))
    return series.x[index], series.y[index]


def line_chart(curve: Curve) -> Markup:
    """A chart with axes, ticks, labels and, for more than one line, a legend."""
    all_x = np.concatenate([np.asarray(series.x, float) for series in curve.series])
    all_y = np.concatenate([np.asarray(series.y, float) for series in curve.series])
    x_axis, y_axis = axis(all_x, LEFT, WIDTH - RIGHT), axis(all_y, HEIGHT - BOTTOM, TOP)
    label = f"{curve.title}: {curve.y_label} over {curve.x_label}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in x_axis.ticks():
        parts.append(f'<text x="{x_axis.at(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:.6g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(curve.x_label)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(curve.y_label)}</text>')
    for index, series in enumerate(curve.series):
        parts += [f'<polyline class="line line{index}" points="{run}"/>' for run in polylines(series, x_axis, y_axis)]
        if len(curve.series) > 1:
            y = TOP + 14 + 18 * index
            parts.append(f'<line class="line line{index}" x1="{WIDTH - 150}" x2="{WIDTH - 126}" y1="{y - 4}" y2="{y - 4}"/>')
            parts.append(f'<text x="{WIDTH - 120}" y="{y}">{escape(series.label)}</text>')
    return Markup("".join([*parts, "</svg>"]))


def polylines(series: Series, x_axis: Axis, y_axis: Axis) -> list[str]:
    """The points of a line as SVG wants them, cut where a value is missing; a point alone becomes a short dash."""
    runs: list[list[str]] = [[]]
    for x, y in zip(*thinned(series, WIDTH), strict=True):
        if math.isfinite(y):
            runs[-1].append(f"{x_axis.at(float(x)):.1f},{y_axis.at(float(y)):.1f}")
        elif runs[-1]:
            runs.append([])
    return [" ".join(run if len(run) > 1 else run * 2) for run in runs if run]


def scan_chart(scan: Scan) -> Markup:
    """A scan order as a path from blue to red."""
    cell, side = 20, 8
    width, height = scan.width * cell + 2 * side, scan.height * cell + 2 * side
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="scan order {escape(scan.name)}" class="scan">']
    centres = [(side + (int(i) % scan.width + 0.5) * cell, side + (int(i) // scan.width + 0.5) * cell) for i in scan.order_L]
    last = max(1, len(centres) - 1)
    for step, ((x1, y1), (x2, y2)) in enumerate(pairwise(centres)):
        colour = "rgb({},{},{})".format(*along(step / last))
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="2.5" stroke-linecap="round"/>')
    x, y = centres[0]
    parts.append('<circle cx="{}" cy="{}" r="5" fill="rgb({},{},{})"/>'.format(x, y, *along(0.0)))
    return Markup("".join([*parts, "</svg>"]))


def metric_scale(metric: Metric) -> Markup:
    """The metric and its yardsticks as marks on one line; left is worse where a direction is known."""
    values = [metric.value, *(value for _, value in metric.yardsticks)]
    line = axis(np.array(values), *((450.0, 10.0) if metric.better == "lower" else (10.0, 450.0)))
    parts = [f'<svg viewBox="0 0 460 34" role="img" aria-label="{escape(metric.name)} among its yardsticks" class="scale">']
    parts.append('<line class="rule" x1="10" x2="450" y1="17" y2="17"/>')
    if metric.low is not None and metric.high is not None:
        ends = (min(450.0, max(10.0, line.at(end))) for end in (metric.low, metric.high))
        parts.append('<line class="interval" x1="{:.1f}" x2="{:.1f}" y1="17" y2="17"/>'.format(*ends))
    for name, value in metric.yardsticks:
        title = f"<title>{escape(name)}: {value:.4g}</title>"
        parts.append(f'<circle class="yardstick" cx="{line.at(value):.1f}" cy="17" r="5">{title}</circle>')
    parts.append(f'<circle class="own" cx="{line.at(metric.value):.1f}" cy="17" r="7"><title>{metric.value:.4g}</title></circle>')
    return Markup("".join([*parts, "</svg>"]))
