"""Finds classes by label, name, synset id or part of a name."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import final

import numpy as np

from rarkit.datasets.imagenet import other_names
from rarkit.errors import UserError, closest

SPREAD = 10
"""Number of classes to sample if none is named."""
SHOWN = 12
"""Number of classes that an error lists; the rest are counted."""
LONGEST_NUMBER = 20
"""Digits of a name that is taken for a number."""
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
    known, labels = _Classes(tuple(names)), dict[int, str | int]()
    for query in classes:
        label = known.find(str(query).strip())
        if label in labels:
            raise UserError(
                f"class {query!r} is named twice ({known.numbered(label)}): name each class once, and set the number of images per "
                "class"
            )
        labels[label] = query
    return list(labels)


@final
@dataclass(frozen=True)
class _Classes:
    """The names of all classes, with what finds one among many: recipes may name thousands."""

    names: tuple[str, ...]

    def find(self, query: str) -> int:
        if query not in self._by_name:
            if query.startswith(LABEL):
                return self._find_label(query.removeprefix(LABEL).strip())
            if query.startswith(NAME):
                return self._find_name(query.removeprefix(NAME).strip())
        return self._find_number(query) if _is_number(query.removeprefix("-")) else self._find_name(query)

    def numbered(self, label: int) -> str:
        return f"{self.names[label]!r} ({label})"

    def _find_number(self, query: str) -> int:
        number = int(query)
        if query != str(number) and query in self._by_name:
            # Nobody writes a label as "007".
            return self._by_name[query][0]
        named = self._by_number.get(number, [])
        if not 0 <= number < len(self.names):
            return self._find_name(query) if named else self._find_label(query)
        other = [label for label in named if label != number]
        if other:
            name = self.names[other[0]]
            raise UserError(
                f"class {query} has two meanings: label {number} is class {self.names[number]!r}, and class {name!r} has label "
                f"{other[0]}. Write {LABEL}{number} for class {self.names[number]!r}, or {NAME}{name} for label {other[0]}."
            )
        return number

    def _find_label(self, query: str) -> int:
        if not _is_number(query) or not int(query) < len(self.names):
            raise UserError(f"there is no class {query}: classes are 0 to {len(self.names) - 1}")
        return int(query)

    def _find_name(self, query: str) -> int:
        for matching in self._matches(query):
            if len(matching) == 1:
                return matching[0]
            if matching:
                more = f" and {len(matching) - SHOWN} more" if len(matching) > SHOWN else ""
                listed = ", ".join(self.numbered(label) for label in matching[:SHOWN])
                raise UserError(
                    f"class {query!r} matches {len(matching)} classes: {listed}{more}. Give the number or the full name."
                )
        similar = [label for name in closest(_plain(query), self._by_plain_name, most=3) for label in self._by_plain_name[name]]
        classes = f"Classes are 0 to {len(self.names) - 1}, such as {self.numbered(0)}."
        hint = f"Did you mean {' or '.join(map(self.numbered, sorted(similar)))}?" if similar else classes
        raise UserError(f"no class is called {query!r}. {hint}")

    def _matches(self, query: str) -> Iterator[list[int]]:
        """The labels of the classes that a query may mean, the closest way of matching first."""
        plain = _plain(query)
        yield self._by_name.get(query, [])
        yield self._by_plain_name.get(plain, [])
        yield self._by_other_name.get(plain, [])
        yield self._containing(plain) if plain else []

    def _containing(self, part: str) -> list[int]:
        """The labels of the names that a text is in; they are searched as one text, which is faster."""
        labels, position = list[int](), self._text.find(part)
        while position >= 0:
            labels.append(bisect_right(self._starts, position) - 1)
            # On with the next name.
            position = self._text.find(part, self._starts[labels[-1] + 1]) if labels[-1] + 1 < len(self.names) else -1
        return labels

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        return _labels_by(self.names)

    @cached_property
    def _plain_names(self) -> list[str]:
        return [_plain(name) for name in self.names]

    @cached_property
    def _by_plain_name(self) -> dict[str, list[int]]:
        return _labels_by(self._plain_names)

    @cached_property
    def _by_other_name(self) -> dict[str, list[int]]:
        return _labels_by(map(_plain, other_names(self.names)))

    @cached_property
    def _by_number(self) -> dict[int, list[int]]:
        numbers: dict[int, list[int]] = {}
        for label, name in enumerate(self.names):
            if _is_number(name):
                numbers.setdefault(int(name), []).append(label)
        return numbers

    @cached_property
    def _text(self) -> str:
        return "\n".join(self._plain_names)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(len(name) + 1 for name in self._plain_names)]


def _labels_by(names: Iterable[str]) -> dict[str, list[int]]:
    labels: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        labels.setdefault(name, []).append(label)
    return labels


def _is_number(text: str) -> bool:
    """Whether a text is a whole number that may be a label."""
    return text.isdecimal() and len(text) <= LONGEST_NUMBER


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
