"""The parts of a recipe that were registered in Python: where their source is, and whether it is still the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, final

from pydantic import BaseModel

from rarkit.errors import PluginError
from rarkit.registry.component import Component
from rarkit.registry.contract import named
from rarkit.registry.kind import Kind
from rarkit.registry.kinds import OBSERVERS, TABLES, kind_at
from rarkit.registry.loader import parts
from rarkit.registry.registered import identify_by_source, source_of
from rarkit.registry.source_text import file_of


@final
class PartSource(NamedTuple):
    """A registered part: its name, the class that it is an instance ``of``, the file of that, and the digest of its source."""

    name: str
    of: str
    file: str | None
    sha256: str


class _Source(Protocol):
    """The same, as a receipt has it."""

    @property
    def name(self) -> str: ...
    @property
    def of(self) -> str: ...
    @property
    def file(self) -> str | None: ...
    @property
    def sha256(self) -> str: ...


def part_tables(recipe: BaseModel) -> Iterator[tuple[str, Component]]:
    """The parts of a recipe, by the table that names them: ``scan_order``, ``trackers.0``."""
    for table, kind in TABLES.items():
        value: Any = recipe
        for key in table.split("."):
            value = getattr(value, key, None)
        named_by = {f"{table}.{index}": part for index, part in enumerate(value or ())} if kind.many else {table: value}
        yield from ((path, part) for path, part in named_by.items() if isinstance(part, Component))


def without_observers(tables: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of a finished run without the parts that only watched it: they need not be known where it is read."""
    return {key: table for key, table in tables.items() if key not in OBSERVERS}


def sources(recipe: BaseModel) -> dict[str, PartSource]:
    """The registered parts of a recipe that decide anything in it, by table."""
    return {
        table: PartSource(part.name, f"{type(part).__module__}.{type(part).__qualname__}", file_of(type(part)), sha256)
        for table, part in part_tables(recipe)
        if (sha256 := source_of(type(part))) is not None and not _kind(table).observes
    }


def _kind(table: str) -> Kind:
    kind = kind_at(table)
    assert kind is not None, table
    return kind


def check_known(recipe: BaseModel) -> None:
    """Checks that the recipe's parts are those that their names stand for; a part that nobody registered counts by its source.

    Raises:
        PluginError: one was registered anew since with another source, or is neither installed nor registered and has no source.
    """
    for table, part in part_tables(recipe):
        cls = type(part)
        known = parts().of_kind(cls.kind).get(part.name)
        if known is cls:
            continue
        if source_of(cls) is None:
            identify_by_source(cls)
        is_replaced = known is not None and (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        if known is not None and is_replaced and source_of(known) != source_of(cls):
            raise PluginError(
                f"{_kind(table).header} is a {named(cls)} as it was before another class of this name was registered. Make the "
                "recipe anew."
            )


def check_names_known(then: Mapping[str, _Source], where: str) -> None:
    """Checks that the parts that a run had from Python are known here by name.

    Raises:
        PluginError: one is not.
    """
    for table, source in then.items():
        if (kind := kind_at(table)) is not None and source.name not in parts().of_kind(kind.name):
            raise PluginError(
                f"{where} uses {_called(table, source)}, which its script defined{_in(source.file)}. It is not known here: in "
                "Python, call rarkit.register with that class first; for the command line, install it as a plugin."
            )


def check_same(recipe: BaseModel, then: Mapping[str, _Source], where: str) -> None:
    """Checks that the parts of a run that is opened again have the source that they had.

    Raises:
        PluginError: one has another source, or was an installed one.
    """
    now = sources(recipe)
    for table, part in part_tables(recipe):
        before, after = then.get(table), now.get(table)
        if (before and before.sha256) == (after and after.sha256):
            continue
        if before is None:
            raise PluginError(
                f"{where} used an installed {_kind(table).singular} {part.name!r}, and here {named(type(part))} is registered in "
                "its place. Open the run in a process that does not register it, or give the class another name."
            )
        raise PluginError(
            f"{where} used another version of {_called(table, before)}, than the one known here: its source, or a value it uses, "
            f"has changed. Register the class as it was{_in(before.file)}, or run the recipe again."
        )


def _called(table: str, source: _Source) -> str:
    return f"{_kind(table).singular} {source.name!r}, the class {source.of}"


def _in(file: str | None) -> str:
    return f" in {file}" if file else ""
