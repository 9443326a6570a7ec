"""Loads recipes: TOML, ``extends``, overrides, and errors that give file, line and allowed values."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import Any, NoReturn, get_args

import fsspec
from pydantic import BaseModel, ValidationError

from rarkit.errors import RecipeError, closest, did_you_mean
from rarkit.files.locations import reaching
from rarkit.recipe.schema import Recipe, recipe_model, with_default_names
from rarkit.registry.component import Placed
from rarkit.registry.kinds import TABLES, Parts
from rarkit.registry.loader import parts as installed_parts

OPTION = "--set"
"""How messages refer to a setting given on the command line."""


def load_recipe(path: str, overrides: Sequence[str] = (), *, strict_plugins: bool = False) -> Recipe:
    """Reads, merges and validates a recipe.

    Args:
        path: path or fsspec URL of a TOML file.
        overrides: assignments such as ``"train.steps=100"``: a dotted path and a TOML value (a bare word is a string).
        strict_plugins: fail if any installed plugin is broken, even one that the recipe does not use.

    Raises:
        RecipeError: the file is missing, not TOML, or invalid; every mistake is listed with file and line.
        PluginError: two plugins register the same name, or (with ``strict_plugins``) a plugin is broken.
    """
    path = str(path)
    tables, texts = _read(path, ())
    for assignment in overrides:
        override(tables, assignment)
        table, _, key = assignment.partition("=")[0].strip().rpartition(".")
        texts = {f"{OPTION} {assignment}": f"[{table}]\n{key} ="} | texts
    recipe = parse_recipe(tables, installed_parts(strict=strict_plugins), path, texts)
    command = shlex.join(["rarkit", "run", path, *(f"--set={assignment}" for assignment in overrides)])
    return recipe.named(PurePosixPath(path).stem, command)


def parse_recipe(tables: Mapping[str, Any], parts: Parts, path: str = "recipe", texts: Mapping[str, str] | None = None) -> Recipe:
    """Validates a recipe given as nested dictionaries; ``path`` and ``texts`` (file contents by path) are used in messages only.

    Raises:
        RecipeError: the tables are not a valid recipe; every mistake is listed.
    """
    tables = with_default_names(dict(tables))
    problems = _unknown_parts(tables, parts)
    try:
        recipe = _model(parts).model_validate(tables)
    except ValidationError as error:
        problems = {**_problems(error, parts, list(problems)), **problems}
    if problems:
        _refuse(problems, path, texts or {})
    return recipe


@cache
def _model(parts: Parts) -> type[Recipe]:
    return recipe_model(parts)


# Files


def _read(path: str, came_from: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged tables of a file and of those it extends, and the texts of these files by path, the file itself first."""
    if path in came_from:
        raise RecipeError(f"circular extends: {' → '.join([*came_from, path])}. Remove one of them.")
    text = _text(path, came_from)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    folder = path.rsplit("/", 1)[0] if "/" in path else "."
    placed = _place(tables, folder)
    if "extends" not in placed:
        return placed, {path: text}
    base = placed.pop("extends")
    if not isinstance(base, str):
        raise RecipeError(f"{path}: extends: expected the path of a recipe, found {base!r}")
    base_path = base if "://" in base or base.startswith("/") else f"{folder}/{base}".removeprefix("./")
    base_tables, base_texts = _read(base_path, (*came_from, path))
    return _merge(base_tables, placed), {path: text, **base_texts}


def _text(path: str, came_from: tuple[str, ...]) -> str:
    extended_by = f" (extended by {came_from[-1]})" if came_from else ""
    with reaching(path, f"Check the recipe's address{extended_by}.", raising=RecipeError):
        try:
            with fsspec.open(path, "rb") as file:
                return bytes(file.read()).decode("utf-8")
        except FileNotFoundError:
            similar = _similar_recipe(path)
            hint = f" Did you mean {similar}?" if similar else ""
            raise RecipeError(f"there is no recipe {path}{extended_by}.{hint}") from None
        except IsADirectoryError:
            raise RecipeError(f"{path}{extended_by} is a folder. Name a recipe in it: {path.rstrip('/')}/….toml.") from None
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path} is not UTF-8 text ({error}). Is it a recipe?") from None


def _similar_recipe(path: str) -> str | None:
    """A recipe in the same folder with a similar name."""
    filesystem, plain = fsspec.core.url_to_fs(path)
    names: list[str] = filesystem.glob(f"{plain.rsplit('/', 1)[0]}/*.toml") if "/" in plain else []
    close = closest(plain, names)
    return str(PurePosixPath(path).with_name(PurePosixPath(close[0]).name)) if close else None


def _place(value: Any, folder: str) -> Any:
    """The same tables, in which every string carries the folder of its file."""
    if isinstance(value, str):
        return Placed(value, folder)
    if isinstance(value, list):
        return [_place(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _place(item, folder) for key, item in value.items()}
    return value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` updated with ``over``, recursively; a table that names another part replaces the base's table."""
    merged = dict(base)
    for key, value in over.items():
        old = base.get(key)
        same_part = isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name")
        merged[key] = _merge(old, value) if same_part and isinstance(old, dict) else value
    return merged


def override(tables: dict[str, Any], assignment: str) -> None:
    """Sets one value in nested tables: ``table.key=value``, with a TOML value (a bare word is a string).

    Raises:
        RecipeError: the assignment does not have this form, or its path leads through a value that is not a table.
    """
    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys):
        raise RecipeError(f"--set {assignment!r}: expected table.key=value, as in --set train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tables
    for key in keys[:-1]:
        below = table.setdefault(key, {})
        if not isinstance(below, dict):
            raise RecipeError(f"--set {assignment!r}: {key!r} is {below!r}, not a table")
        table = below
    # Another part has other settings, and would refuse those of the part it replaces.
    if keys[-1] == "name" and ".".join(keys[:-1]) in TABLES and table.get("name") != value:
        table.clear()
    table[keys[-1]] = value


# Messages


def _unknown_parts(tables: Mapping[str, Any], parts: Parts) -> dict[str, str]:
    """A message for each table that names no installed part, by dotted path."""
    problems = {}
    for path, kind in TABLES.items():
        table = _at(tables, path.split("."))
        if isinstance(table, Mapping):
            registry_of_kind = parts.of_kind(kind.name)
            part_name = table.get("name")
            if part_name is None:
                problems[f"{path}.name"] = f"missing. Choose one of: {', '.join(registry_of_kind)}."
            elif part_name not in registry_of_kind:
                problems[f"{path}.name"] = registry_of_kind.unknown(str(part_name))
    return problems


def _at(tables: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        tables = tables.get(key) if isinstance(tables, Mapping) else None
    return tables


def _problems(error: ValidationError, parts: Parts, already: Sequence[str]) -> dict[str, str]:
    """A message for each validation error, by dotted path."""
    problems: dict[str, str] = {}
    # A missing key may just be misspelt, so unknown keys come first.
    for mistake in sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] == "missing"):
        location, allowed = _spelled(mistake["loc"], parts)
        path = ".".join(str(key) for key in location)
        if any(path == known or known == f"{path}.name" for known in already):
            continue
        value = mistake.get("input")
        if mistake["type"] == "missing":
            message = "missing"
        elif mistake["type"] == "extra_forbidden":
            message = f"no such key{_suggestion(location, allowed)}"
        elif mistake["type"] == "value_error":
            message = str(mistake["ctx"]["error"])
        else:
            shown = repr(value) if not isinstance(value, (dict, BaseModel)) else "a table"
            message = f"found {shown}; {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
        problems[path] = message
    return problems


def _spelled(location: tuple[int | str, ...], parts: Parts) -> tuple[list[int | str], list[str]]:
    """A pydantic error location as the recipe's keys, and the keys allowed in the table that holds the last of them.

    Inside a discriminated union, pydantic adds the name of the chosen part to the location; it is removed here.
    """
    spelled: list[int | str] = []
    holding: list[type[BaseModel]] = []
    tables: list[type[BaseModel]] = [_model(parts)]
    for key in location:
        chosen = [table for table in tables if "name" in table.model_fields and table.model_fields["name"].default == key]
        annotations = [table.model_fields[str(key)].annotation for table in tables if key in table.model_fields]
        if chosen and not annotations:
            tables = chosen
            continue
        spelled.append(key)
        holding, tables = tables, [table for annotation in annotations for table in _tables_in(annotation)]
    return spelled, list(holding[0].model_fields) if len(holding) == 1 else []


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation: the model itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for inner in get_args(annotation) for table in _tables_in(inner)]


def _suggestion(location: Sequence[int | str], allowed: Sequence[str]) -> str:
    hint = did_you_mean(str(location[-1]), allowed)
    return f"{hint} Allowed: {', '.join(allowed)}." if allowed else hint


def _refuse(problems: Mapping[str, str], path: str, texts: Mapping[str, str]) -> NoReturn:
    lines = []
    for dotted, message in problems.items():
        file, line = _place_of(dotted, path, texts)
        place = f"{file}:{line}" if line and not file.startswith(OPTION) else file
        lines.append(f"{place}: {f'{dotted}: ' if dotted else ''}{message}")
    raise RecipeError("\n".join(lines))


def _place_of(dotted: str, path: str, texts: Mapping[str, str]) -> tuple[str, int | None]:
    """File and line that set a dotted key; ``path`` and no line if none does (the key is missing)."""
    table, _, key = dotted.rpartition(".")
    for file, text in texts.items():
        inside = ""
        for number, line in enumerate(text.splitlines(), start=1):
            header = re.match(r"\s*\[([^\[\]]+)\]", line)
            if header:
                inside = header[1].replace(" ", "")
                if inside == dotted:
                    return file, number
            elif inside == table and re.match(rf"\s*{re.escape(key)}\s*[=.]", line):
                return file, number
    return path, None
