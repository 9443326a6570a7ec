"""The labels of samples in shards: numbers or names of classes, as text or in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from rarkit.datasets.imagenet import other_names
from rarkit.datasets.notices import some_of
from rarkit.errors import DatasetError, did_you_mean

SHOWN, LONGEST = 40, 18
"""Characters of a wrong label that an error shows, and digits that a label may have."""


def unambiguous(names: Sequence[str]) -> list[str]:
    """The names of classes in their order, but for those that are numbers of classes: these lie at their own places.

    So a label that is a number means the same class by name and by number.
    """
    own = {int(name): name for name in names if re.fullmatch(r"[0-9]{1,9}", name) and int(name) < len(names)}
    placed = set(own.values())
    others = (name for name in names if name not in placed)
    return [own[place] if place in own else next(others) for place in range(len(names))]


@final
@dataclass(frozen=True)
class LabelReader:
    """Reads labels from files with one extension: JSON objects if it is ``json``, text otherwise."""

    extension: str
    key: str
    """The key of the label in JSON objects."""
    names: tuple[str, ...]
    """The classes in the order of their labels."""
    named: bool
    """Whether these are names, and not just numbers."""

    @cached_property
    def _labels(self) -> dict[str, int]:
        """The labels by name; ImageNet's classes have their synset ids, too."""
        if not self.named:
            return {}
        return {name: label for names in (other_names(self.names), self.names) for label, name in enumerate(names)}

    def label(self, data: bytes, name: str) -> int:
        """The label in [0, number of classes).

        Raises:
            DatasetError: the file, called ``name`` in messages, has no label, one of no class, or one that is the name of one class
                and the number of another.
        """
        value = str(self._in_json(data, name)) if self.extension == "json" else data.decode("utf-8", "replace").strip()
        is_number = re.fullmatch(rf"[+-]?[0-9]{{1,{LONGEST}}}", value) is not None
        by_number = int(value) if is_number and 0 <= int(value) < len(self.names) else None
        by_name = self._labels.get(value)
        if by_number is not None and by_name not in (None, by_number):
            raise DatasetError(
                f"{name} has the label {value}, which is the name of class {by_name} and the number of class {by_number}, "
                f"{self.names[by_number]!r}. If labels are names, move {value!r} to place {by_number} of class_names, counted from "
                f"0; if they are numbers, give the classes names that are none, such as 'class {value}'."
            )
        label = by_number if by_name is None else by_name
        if label is not None:
            return label
        if is_number:
            cure = "Set class_names to the names of all classes" if self.named else "Raise num_classes"
            classes = f"the {len(self.names)} classes are 0 to {len(self.names) - 1}"
            raise DatasetError(f"{name} has the label {int(value)}, but {classes}. {cure}, or correct the label.")
        shown = repr(value[:SHOWN])
        if self.named:
            raise DatasetError(f"{name} should be a whole number or a class name, but is {shown}{did_you_mean(value, self.names)}")
        raise DatasetError(f"{name} should be a whole number, but is {shown}. If labels are names, set class_names to them.")

    def _in_json(self, data: bytes, name: str) -> int | str:
        try:
            content: Any = json.loads(data)
        except (ValueError, RecursionError) as error:
            cure = "Set label to the extension of the labels, or write the shard again."
            raise DatasetError(f"{name} is not JSON ({error}). {cure}") from error
        if not isinstance(content, dict) or self.key not in content:
            has = some_of(list(content)) if isinstance(content, dict) else f"a {type(content).__name__}"
            raise DatasetError(f"{name} has no key {self.key!r}; it has: {has}. Set label_key to the key of the label.")
        value = content[self.key]
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise DatasetError(f"{name}: {self.key!r} should be a whole number or a class name, but is {str(value)[:SHOWN]}")
        return value.strip() if isinstance(value, str) else value
