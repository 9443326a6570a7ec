"""Scan orders as coloured text for the terminal."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from rarkit.rendering.colours import along, css

ARROWS = {
    (0, 1): "→", (0, -1): "←", (1, 0): "↓", (-1, 0): "↑", (1, 1): "↘", (1, -1): "↙", (-1, 1): "↗", (-1, -1): "↖",
}  # fmt: skip
JUMP, END = "•", "■"


def scan_order_text(order_L: NDArray[np.integer[Any]], height: int, width: int, *, columns: int | None = None) -> Text:
    """The grid with the step at which each cell is visited, coloured along the path; legible without colour too.

    Args:
        order_L: the raster index visited at each step, a bijection onto 0 … height·width − 1.
        height: rows of the grid.
        width: columns of the grid.
        columns: characters in a line; None: as many as it takes. If numbers do not fit, arrows show where the path goes on; if
            arrows do not fit either, the right of the grid is left out, and a last line says so.
    """
    rank_HW = np.argsort(order_L).reshape(height, width)
    cells_HW = [[str(rank) for rank in row] for row in rank_HW]
    digits = len(str(rank_HW.size - 1))
    notes, shown = [], width
    if columns is not None and width * (digits + 1) - 1 > columns:
        cells_HW, digits = _arrows(order_L, rank_HW), 1
        notes.append(f"{JUMP} the path jumps, {END} it ends")
        shown = min(width, max(1, (columns + 1) // 2))
    if shown < width:
        notes.append(f"{width - shown} of {width} columns left out: the terminal is too narrow")
    last = max(1, rank_HW.size - 1)
    lines = []
    for ranks_W, cells_W in zip(rank_HW, cells_HW, strict=True):
        parts = [
            Text(cell.rjust(digits), style=css(along(rank / last)))
            for rank, cell in zip(ranks_W[:shown], cells_W[:shown], strict=True)
        ]
        lines.append(Text(" ").join(parts))
    lines += [Text(note, style="dim") for note in notes]
    text = Text("\n").join(lines)
    text.no_wrap = not notes
    return text


def _arrows(order_L: NDArray[np.integer[Any]], rank_HW: NDArray[np.integer[Any]]) -> list[list[str]]:
    """For each cell where the path goes on from there."""
    height, width = rank_HW.shape
    signs = [END] * rank_HW.size
    for here, there in pairwise(order_L):
        (row, column), (next_row, next_column) = divmod(int(here), width), divmod(int(there), width)
        signs[int(here)] = ARROWS.get((next_row - row, next_column - column), JUMP)
    return [signs[row * width : (row + 1) * width] for row in range(height)]
