"""Finds classes by label, name, synset id or part of a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rarkit.datasets.imagenet import other_names
from rarkit.errors import UserError, closest

SPREAD = 10
"""Number of classes to sample if none is named."""
SHOWN = 12
"""Number of classes that an error lists; the rest are counted."""
LABEL, NAME = "label:", "name:"
"""Prefixes that say how a number is meant."""


def spread(count: int) -> list[int]:
    """Labels of up to ``SPREAD`` of ``count`` classes, evenly spaced from the first to the last."""
    return [int(label) for label in np.unique(np.linspace(0, count - 1, min(count, SPREAD)).round())]


def find_classes(classes: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """The labels of classes, in the order given.

    A number is a label. If no class has this label, it is the class named by the number; if one class has the label and another
    one the name, it is refused, and ``label:2`` or ``name:2`` says which is meant. Anything else is a full name (case-insensitive,
    with ``_`` or space), or a part of a name that is in no other name. ImageNet's classes also have their synset ids.

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
                "images per class"
            )
    return labels


def _find(query: str, names: Sequence[str]) -> int:
    if query not in names:
        if query.startswith(LABEL):
            return _by_label(query.removeprefix(LABEL).strip(), names)
        if query.startswith(NAME):
            return _by_name(query.removeprefix(NAME).strip(), names)
    return _by_number(query, names) if query.removeprefix("-").isdecimal() else _by_name(query, names)


def _by_number(query: str, names: Sequence[str]) -> int:
    number = int(query)
    if query != str(number) and query in names:
        # Nobody writes a label as "007".
        return names.index(query)
    named = [label for label, name in enumerate(names) if name.isdecimal() and int(name) == number]
    if not 0 <= number < len(names):
        return _by_name(query, names) if named else _by_label(query, names)
    other = [label for label in named if label != number]
    if other:
        raise UserError(
            f"class {query} has two meanings: label {number} is class {names[number]!r}, and class {names[other[0]]!r} has label "
            f"{other[0]}. Write {LABEL}{number} for class {names[number]!r}, or {NAME}{names[other[0]]} for label {other[0]}."
        )
    return number


def _by_label(query: str, names: Sequence[str]) -> int:
    if not query.isdecimal() or not int(query) < len(names):
        raise UserError(f"there is no class {query}: classes are 0 to {len(names) - 1}")
    return int(query)


def _by_name(query: str, names: Sequence[str]) -> int:
    for matching in _matches(query, names):
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


def _matches(query: str, names: Sequence[str]) -> Iterator[list[int]]:
    """The labels of the classes that a query may mean, the closest way of matching first."""
    plain = _plain(query)
    yield [label for label, name in enumerate(names) if name == query]
    yield [label for label, name in enumerate(names) if _plain(name) == plain]
    yield [label for label, name in enumerate(other_names(names)) if _plain(name) == plain]
    yield [label for label, name in enumerate(names) if plain and plain in _plain(name)]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _numbered(label: int, names: Sequence[str]) -> str:
    return f"{names[label]!r} ({label})"
