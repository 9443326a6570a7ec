"""Classes by the names that people type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rarkit.errors import UserError, closest

SPREAD = 10
"""How many classes are taken if none is named."""
SHOWN = 12
"""How many classes an error lists before it says how many more there are."""


def spread(count: int) -> list[int]:
    """Labels of some of ``count`` classes, evenly spaced from the first to the last; of all of them if they are few."""
    return [int(label) for label in np.unique(np.linspace(0, count - 1, min(count, SPREAD)).round())]


def find_classes(wanted: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """The labels of classes, in the order in which they are named.

    A number is a label. Anything else is a name: in full (case does not matter, and ``_`` may stand for a space), or a part of it
    that occurs in no other name.

    Args:
        wanted: labels or names.
        names: the name of each class, by label.

    Raises:
        UserError: one of them fits no class or several, or two of them mean the same class.
    """
    labels = [_find(str(one).strip(), names) for one in wanted]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise UserError(
                f"class {wanted[index]!r} is named twice ({_numbered(label, names)}): name each once, -n says how many images of it"
            )
    return labels


def _find(wanted: str, names: Sequence[str]) -> int:
    if wanted.lstrip("-").isdecimal():
        label = int(wanted)
        if not 0 <= label < len(names):
            raise UserError(f"there is no class {wanted}: classes are 0 to {len(names) - 1}")
        return label
    for matching in (
        [label for label, name in enumerate(names) if name == wanted],
        [label for label, name in enumerate(names) if _plain(name) == _plain(wanted)],
        [label for label, name in enumerate(names) if wanted and _plain(wanted) in _plain(name)],
    ):
        if len(matching) == 1:
            return matching[0]
        if matching:
            more = f" and {len(matching) - SHOWN} more" if len(matching) > SHOWN else ""
            listed = ", ".join(_numbered(label, names) for label in matching[:SHOWN])
            raise UserError(f"class {wanted!r} could be any of {len(matching)}: {listed}{more}. Give its number or its whole name.")
    close = closest(_plain(wanted), [_plain(name) for name in names], most=3)
    meant = [_numbered(label, names) for label, name in enumerate(names) if _plain(name) in close]
    hint = f"Did you mean {' or '.join(meant)}?" if meant else f"Classes are 0 to {len(names) - 1}, such as {_numbered(0, names)}."
    raise UserError(f"no class is called {wanted!r}. {hint}")


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _numbered(label: int, names: Sequence[str]) -> str:
    return f"{names[label]!r} ({label})"
