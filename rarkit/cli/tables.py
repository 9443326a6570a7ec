"""Tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def stdout_console() -> Console:
    """Where commands print their results: stdout."""
    return Console(highlight=False, soft_wrap=False)


def table_of(*columns: str) -> Table:
    """A table without lines; long entries are folded."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
