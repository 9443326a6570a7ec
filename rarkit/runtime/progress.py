"""Progress of long work, on stderr: bars on a terminal and in notebooks, an occasional plain line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from rarkit.printable import printable
from rarkit.runtime.console import PrintableConsole
from rarkit.runtime.notebook_bars import bar, notebook
from rarkit.runtime.pace import Pace

Advance = Callable[..., None]
"""``advance(n=1, note="")``: n more units are done; the note (the latest loss, say) replaces the previous one."""

SECONDS_BETWEEN_LINES = 10.0


@final
class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f}/s" if rate else "", style="progress.data.speed")


@final
class Reporter:
    """Prints messages and progress of stages."""

    def __init__(self, *, quiet: bool = False) -> None:
        """``quiet``: print nothing."""
        self._console = PrintableConsole(stderr=True, quiet=quiet)
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Prints one line."""
        self._console.print(line)

    @contextmanager
    def task(self, description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Shows the progress of work of ``total`` units, ``done`` of which are already finished."""
        publish = None if self._quiet else notebook()
        if publish is not None:
            with bar(publish, description, total, unit, done) as advance:
                yield advance
            return
        context = self._bar if self._console.is_terminal and not self._quiet else self._lines
        with context(printable(description), total, unit, done) as advance:
            yield advance

    @contextmanager
    def waiting(self, line: str) -> Iterator[None]:
        """Prints one line and, on a terminal, shows below it how long the wait has been."""
        self.say(line)
        if not self._console.is_terminal or self._quiet:
            yield
            return
        with Progress(TextColumn("waiting"), TimeElapsedColumn(), console=self._console, transient=True) as progress:
            progress.add_task("", total=None)
            yield

    @contextmanager
    def _bar(self, description: str, total: int, unit: str, done: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task(description, total=total, completed=done, note="")

            def advance(n: int = 1, note: str = "") -> None:
                progress.update(bar, advance=n)
                if note:
                    progress.update(bar, note=printable(note))

            yield advance

    @contextmanager
    def _lines(self, description: str, total: int, unit: str, done: int) -> Iterator[Advance]:
        last, pace = time.monotonic(), Pace(total, done)

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal last
            pace.advance(n)
            if time.monotonic() - last >= SECONDS_BETWEEN_LINES and not self._quiet:
                last = time.monotonic()
                words = [f"{description}: {pace.state:,}/{total:,} {unit}", *pace.words(), note]
                self._console.print(", ".join(word for word in words if word), soft_wrap=True)

        yield advance
