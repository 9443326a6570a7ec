"""The paths and URLs that a recipe names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, final, get_args

from rarkit.files.protocols import is_remote
from rarkit.registry.component import IsLocation, Settings


@final
class Address(NamedTuple):
    """A path or URL in a recipe."""

    setting: str
    """The dotted path of the setting that names it."""
    place: str
    remote: bool
    """Whether it is on another machine."""


def addresses(settings: Settings, above: str = "") -> Iterator[Address]:
    """The addresses in a recipe or in one of its tables, in the order of the settings."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from addresses(value, f"{above}{name}.")
        elif isinstance(value, tuple) and all(isinstance(one, Settings) for one in value):
            for index, one in enumerate(value):
                yield from addresses(one, f"{above}{name}.{index}.")
        elif _names_locations([*field.metadata, field.annotation]):
            places = [value] if isinstance(value, str) else value or ()
            yield from (Address(f"{above}{name}", place, is_remote(place)) for place in places)


def _names_locations(annotations: list[Any]) -> bool:
    """Whether an annotation, or one inside it, as in ``Location | None``, marks a location."""
    return any(
        isinstance(annotation, IsLocation) or _names_locations([*getattr(annotation, "__metadata__", ()), *get_args(annotation)])
        for annotation in annotations
    )
