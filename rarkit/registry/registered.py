"""The parts that were registered in this process, by ``rarkit.register``."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from rarkit.registry.source_digest import source_digest
from rarkit.registry.source_text import text_of

_registered: dict[tuple[str, str], type[Any]] = {}
"""By kind and name."""
_own: WeakSet[type] = WeakSet()
"""The classes that are identified by their source: also those that have been replaced since, and those that were not registered."""


def add(part: type[Any]) -> None:
    """Registers a part that has been checked, in the place of one of this name."""
    identify_by_source(part)
    _registered[part.kind, part.part_name()] = part


def current() -> tuple[type[Any], ...]:
    """The parts that are registered at the moment."""
    return tuple(_registered.values())


def registered(kind: str, name: str) -> type[Any] | None:
    """The part of this kind and name, if one was registered."""
    return _registered.get((kind, name))


def identify_by_source(part: type) -> None:
    """From now on the source of a part is in its identity, because no plugin brought it.

    Raises:
        PluginError: it has no source text.
    """
    text_of(part)
    _own.add(part)


def source_of(part: type) -> str | None:
    """``source_digest`` of a part that was defined in Python; None for what plugins brought: their version vouches for it."""
    return source_digest(part) if part in _own else None
