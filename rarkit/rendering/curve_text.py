"""A curve of values from 0 to 1 as text."""

from __future__ import annotations

from collections.abc import Sequence

ROWS, COLUMNS = 8, 64
EIGHTHS = " ▁▂▃▄▅▆▇█"


def curve_text(values: Sequence[float], caption: str, *, rows: int = ROWS, columns: int = COLUMNS) -> str:
    """The area under a curve, from 0 at the bottom to 1 at the top, in eighths of a line.

    Args:
        values: at least one, in [0, 1], evenly spaced from the left edge to the right one.
        caption: below the horizontal axis.
        rows, columns: the size of the area in characters.
    """
    last = len(values) - 1
    heights = [round(8 * rows * values[round(column * last / (columns - 1))]) for column in range(columns)]
    lines = []
    for row in range(rows - 1, -1, -1):
        label = {rows - 1: "1 ┤", 0: "0 ┤"}.get(row, "  │")
        lines.append((label + "".join(EIGHTHS[min(8, max(0, height - 8 * row))] for height in heights)).rstrip())
    return "\n".join([*lines, "  └" + "─" * columns, f"   {caption}"])
