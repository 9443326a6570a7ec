"""The page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64

from rarkit.report.charts import line_chart, metric_scale, scan_chart
from rarkit.report.data import PictureGrid, RunReport
from rarkit.report.pictures import grid_image, png_bytes
from rarkit.report.terminal import number


def render(report: RunReport) -> str:
    """The page as HTML, pictures and charts inside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rarkit.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "chart": line_chart, "scan": scan_chart, "scale": metric_scale, "picture": _data_url}
    return environment.get_template("page.html.j2").render(report=report)


def _data_url(grid: PictureGrid) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(grid_image(grid))).decode()
