"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.padding import Padding
from rich.table import Table

from rarkit.printable import printable
from rarkit.runtime.console import PrintableConsole


def table_of(*columns: str) -> Table:
    """A table without lines; long entries are folded. ``PrintableConsole`` prints it."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_entries(columns: Sequence[str], entries: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
    """Prints entries, each a row under the columns and paragraphs below it: a column for those would be a few letters wide."""
    console = PrintableConsole()
    rows = [columns, *([printable(cell) for cell in cells] for cells, _ in entries)]
    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    indent = widths[0] + 2
    for number, cells in enumerate(rows):
        line = "  ".join(set_cell_size(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        console.print(line, style="" if number else "bold", soft_wrap=True)
        for paragraph in entries[number - 1][1] if number else ():
            console.print(Padding(paragraph, (0, 0, 0, indent), expand=False))
