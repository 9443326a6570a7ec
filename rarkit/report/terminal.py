"""The numbers of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from rarkit.evaluation.record import MetricRecord
from rarkit.rendering.numbers import number
from rarkit.report.remarks import remarks


def metrics_table(metrics: Sequence[MetricRecord]) -> Table:
    """Each number with its interval and its yardsticks; what there is to remark on them is below."""
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption_style="")
    table.caption = Text("\n".join(remarks(metrics))) or None
    for column in ("metric", "value", "5 % … 95 %", "yardsticks"):
        table.add_column(column, justify="right" if column in ("value", "5 % … 95 %") else "left")
    for metric in metrics:
        arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
        unit = f" {metric.unit}" if metric.unit else ""
        interval = f"{number(metric.low)} … {number(metric.high)}" if metric.low is not None and metric.high is not None else ""
        beside = ", ".join(f"{name} {number(value)}" for name, value in metric.yardsticks.items())
        cells = (Text(metric.name + arrow), Text(number(metric.value) + unit, style="bold"), Text(interval), Text(beside))
        table.add_row(*cells)
    return table
