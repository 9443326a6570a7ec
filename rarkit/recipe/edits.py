"""Changes to nested tables: merging those of two recipes, setting a value (``--set``), dropping a key (``--unset``)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from rarkit.errors import RecipeError, did_you_mean
from rarkit.recipe.toml_text import parsed
from rarkit.registry.kinds import TABLES
from rarkit.registry.shown import shown

SET, UNSET = "--set", "--unset"
"""How messages refer to changes on the command line."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` updated with ``over``, recursively; a table that names another part replaces the base's table."""
    result = dict(base)
    for key, value in over.items():
        old = base.get(key)
        same_part = isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name")
        result[key] = merged(old, value) if same_part and isinstance(old, dict) else value
    return result


def override(tables: dict[str, Any], assignment: str) -> None:
    """Sets one value in nested tables: ``table.key=value``, with a TOML value (a bare word is a string).

    Raises:
        RecipeError: the assignment does not have this form, or its path leads through a value that is not a table.
    """
    path, equals, text = assignment.partition("=")
    keys = _keys(path)
    if not equals or not keys:
        raise RecipeError(f"{SET} {assignment!r}: expected table.key=value, as in {SET} train.steps=100")
    try:
        value = parsed(f"value = {text}", f"{SET} {path.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    _assign(tables, keys, value, f"{SET} {assignment!r}")


def replaced(tables: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Sets values in nested tables by dotted path, in place: tables first, then names of parts, then settings.

    Raises:
        RecipeError: a path has not this form, or leads through a value that is not a table.
    """
    for path, value in sorted(changes.items(), key=lambda change: _precedence(str(change[0]))):
        keys = _keys(str(path))
        if not keys:
            raise RecipeError(f"replace: expected the dotted path of a setting, as in 'train.steps', but got {shown(path)}")
        _assign(tables, keys, value, f"replace: {path}")


def _precedence(path: str) -> tuple[int, bool]:
    """Shallow paths come first, and the name of a part, which drops the settings of another, before its settings."""
    keys = _keys(path)
    return len(keys), keys[-1:] != ["name"]


def _assign(tables: dict[str, Any], keys: list[str], value: Any, place: str) -> None:
    """Sets the value at a path; ``place`` is for messages."""
    table = tables
    for key in keys[:-1]:
        if table.get(key) is None:
            table[key] = {}
        below = table[key]
        if not isinstance(below, dict):
            raise RecipeError(f"{place}: {key!r} is {shown(below)}, not a table. Name a key of a table.")
        table = below
    # Another part has other settings, and would refuse those of the part it replaces.
    if keys[-1] == "name" and ".".join(keys[:-1]) in TABLES and table.get("name") != value:
        table.clear()
    table[keys[-1]] = value


def drop(tables: dict[str, Any], path: str, place: str, owner: str) -> None:
    """Drops one key of nested tables, ``table.key``, or a whole table.

    Args:
        tables: the nested tables, changed in place.
        path: the dotted path of the key.
        place: where the request was made, for messages.
        owner: what the tables belong to, for messages.

    Raises:
        RecipeError: the tables do not have this key.
    """
    keys, table = _keys(path), tables
    if not keys:
        raise RecipeError(f"{place}: expected the dotted path of a key, as in sample.top_k, but got {path!r}")
    for key in keys[:-1]:
        below = table.get(key)
        table = below if isinstance(below, dict) else {}
    if keys[-1] not in table:
        known = list(_paths(tables))
        top = ", ".join(tables) or "nothing"
        raise RecipeError(f"{place}: {owner} sets no {path!r}{did_you_mean(path, known)} It sets: {top}.")
    del table[keys[-1]]


def _keys(path: str) -> list[str]:
    """The keys of a dotted path; empty if it is not one."""
    keys = [key.strip() for key in path.split(".")]
    return keys if all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys) else []


def _paths(tables: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted paths of all tables and keys."""
    for key, value in tables.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{above}{key}.")
