"""The page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, final

from markupsafe import Markup

from rarkit.printable import printable
from rarkit.rendering.charts import HUES, line_chart, scan_chart
from rarkit.rendering.figures import PictureGrid
from rarkit.rendering.numbers import duration, number, words
from rarkit.rendering.pictures import check_labels, layout, mosaic
from rarkit.rendering.png import png_bytes
from rarkit.report.data import RunReport
from rarkit.report.yardstick_scale import scale

if TYPE_CHECKING:
    from jinja2 import Template

WIDEST = 1600
"""Pixels of the widest picture inside the page."""


@final
@dataclass(frozen=True)
class Sheet:
    """A picture on the page. Its labels are text beside it, so that they follow the reader's colours and sizes."""

    url: str
    width: int
    height: int
    rows: int
    columns: int


def render(report: RunReport) -> str:
    """The page as HTML, with pictures and charts inside; it loads nothing.

    Raises:
        GridError: a picture grid holds no images, or labels that do not fit its rows and columns in number.
    """
    times = [stage.seconds for stage in report.stages if stage.seconds is not None]
    return _template().render(report=report, slowest=max(times, default=0.0) or 1.0, hues=HUES, machines=_machines(report))


@cache
def _template() -> Template:
    """The page's template, compiled once in a process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rarkit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "words": words,
        "duration": duration,
        "chart": line_chart,
        "scan": scan_chart,
        "scale": scale,
        "sheet": _sheet,
    }
    return environment.get_template("page.html.j2")


def _shown(value: object) -> object:
    """What the template fills in: text, charts too, without what would turn the text around it."""
    if isinstance(value, Markup):
        return Markup(printable(value, lines=True))
    return printable(value, lines=True) if isinstance(value, str) else value


def _machines(report: RunReport) -> dict[str, list[str]]:
    """The stages that each machine made, in the order of the stages; those whose machine was not recorded are left out."""
    machines: dict[str, list[str]] = {}
    for stage in report.stages:
        if stage.machine:
            machines.setdefault(stage.machine, []).append(stage.name)
    return machines


def _sheet(grid: PictureGrid) -> Sheet:
    cells = layout(grid.images_NHWC, columns=grid.columns, widest=WIDEST)
    check_labels(cells, grid.row_labels, grid.column_labels)
    picture = png_bytes(mosaic(grid.images_NHWC, columns=grid.columns, widest=WIDEST))
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    return Sheet(url, cells.width, cells.height, cells.rows, cells.columns)
