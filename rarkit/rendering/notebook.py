"""Fragments of HTML that notebooks show for plans, runs and parts. All text is somebody's, and is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from rarkit.printable import printable
from rarkit.rendering.charts import line_chart
from rarkit.rendering.figures import Curve
from rarkit.rendering.png import png_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

# The colours of a notebook may be dark on light or light on dark: all but the lines are those of its text.
_STYLE = Markup(
    "<style>.rarkit-chart{max-width:560px}.rarkit-chart text{fill:currentColor;opacity:.75;font:12px sans-serif}"
    ".rarkit-chart .rule{stroke:currentColor;opacity:.15}.rarkit-chart .axis{stroke:currentColor;opacity:.5}"
    ".rarkit-chart .line{fill:none;stroke:#4a7fc9;stroke-width:2}.rarkit-chart .dot{fill:#4a7fc9}"
    ".rarkit-chart .faint{opacity:.35}</style>"
)


def shown(text: object) -> Markup:
    """A text with nothing in it that is HTML, steers a reader, or turns text around."""
    return escape(printable(str(text)))


def heading(text: object, below: object = "") -> Markup:
    """A line in bold, and one below it."""
    line = Markup("<div><b>") + shown(text) + Markup("</b></div>")
    return line + (Markup("<div>") + shown(below) + Markup("</div>") if str(below) else Markup(""))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table of texts; all columns are flush left."""

    def row(cells: Sequence[object], tag: str) -> Markup:
        inner = (Markup(f'<{tag} style="text-align:left">') + shown(cell) + Markup(f"</{tag}>") for cell in cells)
        return Markup("<tr>") + Markup("").join(inner) + Markup("</tr>")

    body = Markup("").join(row(cells, "td") for cells in rows)
    return Markup("<table><thead>") + row(head, "th") + Markup("</thead><tbody>") + body + Markup("</tbody></table>")


def picture(image: Image, about: str) -> Markup:
    """An image inside the HTML; ``about`` is read to those who do not see it."""
    data = base64.b64encode(png_bytes(image)).decode()
    style = "max-width:100%;height:auto"
    return Markup(f'<img style="{style}" alt="') + shown(about) + Markup(f'" src="data:image/png;base64,{data}">')


def chart(curve: Curve) -> Markup:
    """A chart of lines, in the colours of the notebook."""
    return _STYLE + Markup('<div class="rarkit-chart">') + Markup(printable(line_chart(curve), lines=True)) + Markup("</div>")
