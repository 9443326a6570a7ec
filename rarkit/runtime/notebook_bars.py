"""Progress in notebooks: one bar of HTML, replaced as work goes on. It needs no widgets."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

from rarkit.printable import printable
from rarkit.runtime.pace import Pace

SECONDS_BETWEEN_BARS = 0.2


class Publish(Protocol):
    """How a notebook is given something to show, or to replace: IPython's ``display_pub.publish``."""

    def __call__(self, data: dict[str, str], *, transient: dict[str, str], update: bool) -> object: ...


def notebook() -> Publish | None:
    """The way into the notebook that this process runs for; None if there is none."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    # The shell of a terminal has no kernel.
    return shell.display_pub.publish if hasattr(shell, "kernel") else None


@contextmanager
def bar(publish: Publish, description: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    """Shows the progress of work of ``total`` units; yields ``advance(n=1, note="")``."""
    name, pace = secrets.token_hex(8), Pace(total, done)
    latest, shown_at = "", time.monotonic()

    def show(*, update: bool) -> None:
        words = [f"{description}: {pace.state:,}/{total:,} {unit}", *pace.words(), latest]
        line = printable(", ".join(word for word in words if word))
        html = f'<div><progress value="{pace.state}" max="{total}"></progress> {escape(line)}</div>'
        publish({"text/plain": line, "text/html": html}, transient={"display_id": name}, update=update)

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal latest, shown_at
        pace.advance(n)
        latest = note or latest
        if time.monotonic() - shown_at >= SECONDS_BETWEEN_BARS:
            shown_at = time.monotonic()
            show(update=True)

    show(update=False)
    try:
        yield advance
    finally:
        show(update=True)
