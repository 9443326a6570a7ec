"""Scan orders and metrics for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from rarkit.report.data import Metric
from rarkit.report.pictures import along


def scan_order_text(order_L: NDArray[np.int64], height: int, width: int) -> Text:
    """The grid with the step at which each cell is visited, coloured along the way; legible without colour too."""
    rank_HW = np.argsort(order_L).reshape(height, width)
    digits, last = len(str(rank_HW.max())), max(1, rank_HW.max())
    text = Text(no_wrap=True)
    for row in rank_HW:
        for column, rank in enumerate(row):
            colour = "#{:02x}{:02x}{:02x}".format(*along(rank / last))
            text.append(("" if column == 0 else " ") + str(rank).rjust(digits), style=colour)
        text.append("\n")
    text.right_crop(1)
    return text


def metrics_table(metrics: Sequence[Metric]) -> Table:
    """Each number with its interval, and its yardsticks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("metric", "value", "5 % … 95 %", "yardsticks"):
        table.add_column(column, justify="right" if column in ("value", "5 % … 95 %") else "left")
    for metric in metrics:
        arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
        interval = f"{number(metric.low)} … {number(metric.high)}" if metric.low is not None and metric.high is not None else ""
        beside = ", ".join(f"{name} {number(value)}" for name, value in metric.yardsticks)
        table.add_row(metric.name + arrow, f"[bold]{number(metric.value)}[/bold]", interval, beside)
    return table


def number(value: float | None) -> str:
    """A number in four figures."""
    return "" if value is None else f"{value:.4g}"
