"""The numbers of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from rarkit.evaluation.record import MetricRecord
from rarkit.rendering.numbers import number
from rarkit.report.remarks import remarks
from rarkit.runtime.console import in_lines, styled, with_whole_names


def metrics_table(metrics: Sequence[MetricRecord]) -> Table:
    """Each number with its interval and its yardsticks; remarks on them are below. ``PrintableConsole`` prints it."""
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption_style="")
    table.caption = in_lines(remarks(metrics)) or None
    for column in ("metric", "value", "5 % … 95 %", "yardsticks"):
        table.add_column(column, justify="right" if column in ("value", "5 % … 95 %") else "left", overflow="fold")
    for metric in metrics:
        arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
        unit = f" {metric.unit}" if metric.unit else ""
        interval = f"{number(metric.low)} … {number(metric.high)}" if metric.low is not None and metric.high is not None else ""
        beside = ", ".join(f"{name} {number(value)}" for name, value in metric.yardsticks.items())
        table.add_row(metric.name + arrow, styled(number(metric.value) + unit, "bold"), interval, beside)
    return with_whole_names(table)
