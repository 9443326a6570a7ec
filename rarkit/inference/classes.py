"""Finds classes by label, name or part of a name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rarkit.errors import UserError, closest

SPREAD = 10
"""Number of classes to sample if none is named."""
SHOWN = 12
"""Number of classes that an error lists; the rest are counted."""


def spread(count: int) -> list[int]:
    """Labels of up to ``SPREAD`` of ``count`` classes, evenly spaced from the first to the last."""
    return [int(label) for label in np.unique(np.linspace(0, count - 1, min(count, SPREAD)).round())]


def find_classes(classes: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """The labels of classes, in the order given.

    A number is a label. Anything else is a full name (case-insensitive, with ``_`` or space), or a part of a name that is in no
    other name.

    Args:
        classes: labels or names.
        names: the name of each class, by label.

    Raises:
        UserError: an entry matches no class or several, or two entries match the same class.
    """
    labels = [_find(str(query).strip(), names) for query in classes]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise UserError(
                f"class {classes[index]!r} is named twice ({_numbered(label, names)}): name each class once, and set the number of "
                "images with -n"
            )
    return labels


def _find(query: str, names: Sequence[str]) -> int:
    if query.lstrip("-").isdecimal():
        label = int(query)
        if not 0 <= label < len(names):
            raise UserError(f"there is no class {query}: classes are 0 to {len(names) - 1}")
        return label
    for matching in (
        [label for label, name in enumerate(names) if name == query],
        [label for label, name in enumerate(names) if _plain(name) == _plain(query)],
        [label for label, name in enumerate(names) if query and _plain(query) in _plain(name)],
    ):
        if len(matching) == 1:
            return matching[0]
        if matching:
            more = f" and {len(matching) - SHOWN} more" if len(matching) > SHOWN else ""
            listed = ", ".join(_numbered(label, names) for label in matching[:SHOWN])
            raise UserError(f"class {query!r} matches {len(matching)} classes: {listed}{more}. Give the number or the full name.")
    close = closest(_plain(query), [_plain(name) for name in names], most=3)
    similar = [_numbered(label, names) for label, name in enumerate(names) if _plain(name) in close]
    classes = f"Classes are 0 to {len(names) - 1}, such as {_numbered(0, names)}."
    hint = f"Did you mean {' or '.join(similar)}?" if similar else classes
    raise UserError(f"no class is called {query!r}. {hint}")


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _numbered(label: int, names: Sequence[str]) -> str:
    return f"{names[label]!r} ({label})"
