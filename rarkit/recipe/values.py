"""What Python gives for the tables of a recipe: parts, their classes and names, settings, nested dictionaries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from rarkit.errors import RecipeError
from rarkit.registry.component import Component, Settings
from rarkit.registry.kinds import TABLES, kind_at
from rarkit.registry.loader import parts
from rarkit.registry.registered import source_of


def as_tables(value: Any, path: str = "") -> Any:
    """A value at a dotted path of a recipe, as TOML would have it: nested dictionaries of plain data.

    Parts and settings become their tables; the name or the class of a part, where a part belongs, becomes the table that names it.

    Raises:
        RecipeError: a part is not the one that is installed or registered under its name.
    """
    if isinstance(value, type) and issubclass(value, Component):
        _check_known(value, path)
        return {"name": value.part_name()}
    if isinstance(value, Settings):
        if isinstance(value, Component):
            _check_known(type(value), path)
        start = f"{path}." if path else ""
        inner = {name: getattr(value, name) for name in type(value).model_fields}
        nested = {name: one for name, one in inner.items() if isinstance(one, Settings) or _takes_many(f"{start}{name}")}
        below = {name: as_tables(one, f"{start}{name}") for name, one in nested.items()}
        return {**value.model_dump(mode="json"), **below}
    if isinstance(value, Mapping):
        return {str(key): as_tables(one, f"{path}.{key}" if path else str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple) and _takes_many(path):
        return [as_tables(one, f"{path}.{index}") for index, one in enumerate(value)]
    if isinstance(value, str) and kind_at(path) is not None:
        return {"name": value}
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _takes_many(path: str) -> bool:
    return path in TABLES and TABLES[path].many


def _check_known(cls: type[Component], path: str) -> None:
    """A recipe names its parts, so that another class of the same name would take the place of this one."""
    known = parts().of_kind(cls.kind).get(cls.part_name())
    # A notebook's cell that is run again makes another class of the same source.
    if known is None or (known is not cls and (source_of(cls) is None or source_of(known) != source_of(cls))):
        raise RecipeError(
            f"{path}: the class {cls.__module__}.{cls.__qualname__} is neither installed nor registered as {cls.part_name()!r}. "
            f"Call rarkit.register({cls.__name__}) before the recipe is made."
        )
