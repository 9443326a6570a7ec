"""What a dataset tells the user without failing: each notice once a run, from its first process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

from rarkit.errors import RarkitWarning

NAMED = 3
"""Number of things that a notice names; the rest are counted."""
_GIVEN: set[str] = set()


def notify(*lines: str, about: str | None = None) -> None:
    """Warns once in a process, and only in the first rank; ``about``, by default the message, is what is said once."""
    about = "\n".join(lines) if about is None else about
    # torchrun sets RANK; every rank opens the same data.
    if about in _GIVEN or os.environ.get("RANK", "0") != "0":
        return
    _GIVEN.add(about)
    warnings.warn(RarkitWarning(*lines), stacklevel=3)


def some_of(names: Sequence[str], count: int | None = None) -> str:
    """The first few names, and how many more of ``count`` (by default of the names) there are."""
    more = (len(names) if count is None else count) - len(names[:NAMED])
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more else "")
