"""Charts as inline SVG: lines over axes, scan orders as paths. Their colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from rarkit.rendering.axes import Axis, axis
from rarkit.rendering.colours import along, css
from rarkit.rendering.figures import Curve, Scan, Series
from rarkit.rendering.numbers import tick_labels

WIDTH, HEIGHT = 560, 290
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 44
HUES = 6
"""How many lines have colours of their own; further lines begin again with the first."""
CELL, BORDER, STRETCHES = 20, 6, 48
LARGEST_NUMBERED = 100


def line_chart(curve: Curve) -> Markup:
    """A chart with axes, ticks, labels and, for more than one line, a legend below; gaps where values are not finite.

    Thousands of points are thinned to the extremes of each column of pixels, so no spike is lost.
    """
    empty = [np.zeros(0)]
    all_x = np.concatenate([np.asarray(series.x, float) for series in curve.series] or empty)
    all_y = np.concatenate([np.asarray(series.y, float) for series in curve.series] or empty)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x_axis, y_axis = axis(all_x, LEFT, right), axis(all_y, bottom, TOP, log=curve.log_y)
    label = f"{curve.title}: {curve.y_label} over {curve.x_label}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    parts.append(f'<text class="name" x="4" y="14">{escape(curve.y_label)}</text>')
    for tick, text in _labelled(y_axis):
        y = y_axis.at(tick)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for tick, text in _labelled(x_axis):
        x = x_axis.at(tick)
        anchor = "end" if x > right - 8 else "middle"
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="{anchor}">{text}</text>')
    parts.append(f'<text class="name" x="{right}" y="{HEIGHT - 6}" text-anchor="end">{escape(curve.x_label)}</text>')
    runs = [run for series, hue in _with_hues(curve.series) for run in _lines(series, hue, x_axis, y_axis)]
    if not runs:
        runs = [f'<text x="{(LEFT + right) / 2}" y="{(TOP + bottom) / 2}" text-anchor="middle">nothing to show</text>']
    return Markup("".join([*parts, *runs, "</svg>", _legend(curve.series)]))


def _labelled(shown: Axis) -> list[tuple[float, str]]:
    ticks = shown.ticks()
    return list(zip(ticks, tick_labels(ticks), strict=True))


def _with_hues(series: tuple[Series, ...]) -> Iterator[tuple[Series, str]]:
    """Each line with its colour class; pale lines take none of the hues."""
    hues = cycle(f"hue{index}" for index in range(HUES))
    for one in series:
        yield one, "faint" if one.faint else next(hues)


def _lines(series: Series, hue: str, x_axis: Axis, y_axis: Axis) -> list[str]:
    shapes = []
    for run in point_runs(series, x_axis, y_axis):
        if len(run) == 1:
            x, y = run[0]
            shapes.append(f'<circle class="dot {hue}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        else:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            shapes.append(f'<polyline class="line {hue}" points="{points}"/>')
    return shapes


def _legend(series: tuple[Series, ...]) -> str:
    if len(series) < 2:
        return ""
    items = []
    for one, hue in _with_hues(series):
        shape = "swatch point" if len(one.x) == 1 else "swatch"
        items.append(f'<li><span class="{shape} {hue}"></span>{escape(one.label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def point_runs(series: Series, x_axis: Axis, y_axis: Axis) -> list[list[tuple[float, float]]]:
    """The pixels of a line's points, cut where a value is missing."""
    x, y = thinned(series, x_axis)
    runs: list[list[tuple[float, float]]] = [[]]
    for one_x, one_y in zip(x, y, strict=True):
        point = x_axis.at(float(one_x)), y_axis.at(float(one_y))
        if math.isfinite(point[0]) and math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def thinned(series: Series, x_axis: Axis) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first, last, least and greatest point of each column of pixels, where a line has far more points than that.

    Columns of which no value is finite stay gaps; a gap within a column cannot be seen, and is dropped.
    """
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    if len(x) <= 2 * WIDTH:
        return x, y
    columns = np.floor([x_axis.at(float(value)) for value in x])
    keep: list[int] = []
    for part in np.split(np.arange(len(x)), np.flatnonzero(np.diff(np.nan_to_num(columns, nan=-1.0))) + 1):
        finite = part[np.isfinite(y[part])]
        if finite.size:
            ends = finite[0], finite[-1], finite[np.argmin(y[finite])], finite[np.argmax(y[finite])]
            keep += sorted({int(index) for index in ends})
        else:
            keep.append(int(part[0]))
    return x[keep], y[keep]


def scan_chart(scan: Scan) -> Markup:
    """A scan order as a path from blue to amber: thick to a neighbouring cell, thin where it jumps; a ring at the start."""
    width, height = scan.width * CELL + 2 * BORDER, scan.height * CELL + 2 * BORDER
    centres = [
        (BORDER + int(i) % scan.width * CELL + CELL // 2, BORDER + int(i) // scan.width * CELL + CELL // 2) for i in scan.order_L
    ]
    label = f"Scan order {scan.name} on a grid of {scan.height} × {scan.width} tokens"
    parts = [f'<svg class="scan" viewBox="0 0 {width} {height}" style="--cells:{scan.width}" role="img" ']
    parts.append(f'aria-label="{escape(label)}">')
    lines = [f"M{BORDER} {BORDER + row * CELL}h{scan.width * CELL}" for row in range(scan.height + 1)]
    lines += [f"M{BORDER + column * CELL} {BORDER}v{scan.height * CELL}" for column in range(scan.width + 1)]
    parts.append(f'<path class="rule" fill="none" d="{"".join(lines)}"/>')
    near: dict[int, list[str]] = {}
    far: dict[int, list[str]] = {}
    moves = max(1, len(centres) - 1)
    for step, ((x1, y1), (x2, y2)) in enumerate(pairwise(centres)):
        kind = near if max(abs(x1 - x2), abs(y1 - y2)) <= CELL else far
        kind.setdefault(step * STRETCHES // moves, []).append(f"M{x1} {y1}L{x2} {y2}")
    for name, kind in (("jump", far), ("path", near)):
        for stretch, path in kind.items():
            colour = css(along(stretch / (STRETCHES - 1)))
            parts.append(f'<path class="{name}" stroke="{colour}" d="{"".join(path)}"/>')
    if len(centres) > 1:
        x, y = centres[-1]
        parts.append(f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{css(along(1.0))}"/>')
    x, y = centres[0]
    parts.append(f'<circle class="start" cx="{x}" cy="{y}" r="4.5" stroke="{css(along(0.0))}"/>')
    if len(centres) <= LARGEST_NUMBERED:
        parts += [f'<text x="{x + 9}" y="{y - 4}" text-anchor="end">{step}</text>' for step, (x, y) in enumerate(centres)]
    return Markup("".join([*parts, "</svg>"]))
