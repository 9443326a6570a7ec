"""The one way to print by rich. Plain strings are somebody's text: they are made printable, and brackets in them are no markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from rarkit.printable import printable
from rarkit.runtime.output import results


@final
class PrintableConsole(Console):
    """A console that shows strings as they are, whatever is in them. Styles are arguments, or come with ``styled``."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        """``stderr``: print there instead of on stdout; ``quiet``: print nothing."""
        super().__init__(file=None if stderr else results(), stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text of a single line."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is to be printed, piece by piece: also what was not a plain string is made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, lines=True), segment.style)


def styled(text: str, style: str) -> Text:
    """A line in a style of rich."""
    return Text(printable(text), style)


def in_lines(texts: Iterable[str]) -> Text:
    """Several lines, one below the other."""
    return Text("\n").join(Text(printable(text)) for text in texts)


def with_whole_names(table: Table) -> Table:
    """The same table; on narrow terminals its other columns are folded, and the first as a last resort."""
    first = table.columns[0]
    first.width = max(cell_len(printable(str(cell))) for cell in (first.header, *first.cells))
    return table
