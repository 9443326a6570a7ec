"""What is wrong with a recipe, in words: file, line, key, the value that is there and the values allowed."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ValidationError

from rarkit.errors import RecipeError, did_you_mean, sentences
from rarkit.recipe.edits import SET
from rarkit.registry.kinds import TABLES, Parts, kind_at
from rarkit.registry.shown import shortened, shown

MISSING = "missing"
LINES, LISTED = 3, 12
"""Lines of a message, and mistakes that it names; a file that is no recipe may have thousands."""
_TYPE = re.compile(r"(constrained-)?(int|float|str|bool)|function-\w+\[.*\]")
"""How pydantic calls the types of a union."""
NOT_A_LIST = {"tuple_type", "list_type"}
NOT_A_TABLE = {"model_type", "model_attributes_type", "dict_type", "dataclass_type"}
"""Types of pydantic's errors."""


def unknown_parts(tables: Mapping[str, Any], parts: Parts) -> dict[str, str]:
    """A message for each table that names no installed part, by dotted path."""
    problems, named = {}, list[str]()
    for path, kind in TABLES.items():
        value = _at(tables, path)
        named += [f"{path}.{index}" for index in range(len(value) if isinstance(value, list) else 0)] if kind.many else [path]
    for path in named:
        table, kind_of_part = _at(tables, path), kind_at(path)
        if isinstance(table, Mapping) and kind_of_part is not None:
            registry_of_kind = parts.of_kind(kind_of_part.name)
            part_name = table.get("name")
            if part_name is None:
                problems[f"{path}.name"] = f"{MISSING}. Choose one of: {', '.join(registry_of_kind)}."
            elif not isinstance(part_name, str):
                problems[f"{path}.name"] = f"found {shown(part_name)}; expected one of: {', '.join(registry_of_kind)}."
            elif part_name not in registry_of_kind:
                problems[f"{path}.name"] = registry_of_kind.unknown(shortened(part_name))
    return problems


def problems_of(error: ValidationError, model: type[BaseModel], parts: Parts, already: Sequence[str]) -> dict[str, str]:
    """A message for each validation error, by dotted path; those ``already`` reported are left out, and those beyond ``LISTED``."""
    problems: dict[str, str] = {}
    # A missing key may just be misspelt, so unknown keys come first.
    for mistake in sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] == "missing"):
        location, allowed, below = _spelled(mistake["loc"], model)
        path = ".".join(str(key) for key in location)
        if any(path == known or known == f"{path}.name" for known in already):
            continue
        if len(problems) > LISTED:
            break
        if mistake["type"].startswith("union_tag"):
            path = f"{path}.name"
        message = _message(mistake, path, location, allowed, below)
        # A setting may be of one type or another: what is wrong is said for both.
        problems[path] = f"{problems[path]}, or {message.partition('; ')[2]}" if path in problems else message
    return problems


def _message(mistake: Any, path: str, location: Sequence[int | str], allowed: Sequence[str], below: Sequence[str]) -> str:
    """What is wrong, of an error of pydantic.

    Args:
        mistake: the error.
        path, location: the key, as a dotted path and in parts.
        allowed: the keys allowed beside it.
        below: the names of the parts allowed there.
    """
    kind, value = mistake["type"], mistake.get("input")
    what = shown(value) if not isinstance(value, (dict, BaseModel)) else "a table"
    if kind == "missing":
        return f"{MISSING}: set it."
    if kind == "extra_forbidden":
        return f"no such key{_alone(path, allowed) or _suggestion(location, allowed)}"
    if kind == "value_error":
        return str(mistake["ctx"]["error"])
    if kind == "union_tag_not_found":
        return f"{MISSING}. Choose one of: {', '.join(below)}."
    if kind == "union_tag_invalid":
        return f"found {shown(value['name'])}; expected one of: {', '.join(below)}"
    if kind in NOT_A_LIST and path in TABLES:
        item = f"{{name = {json.dumps(shortened(value) if isinstance(value, str) else below[0])}}}"
        header = TABLES[path].header
        return f"found {what}; expected a list of tables: {header} above each, or {path} = [{item}] (with {SET}, in quotes)"
    if kind in NOT_A_LIST and what != "a table":
        return f"found {what}; expected a list: write {path} = {_as_list(value)} (with {SET}, in quotes)"
    if kind in NOT_A_TABLE:
        named = isinstance(value, str) and (kind_at(path) is not None or below)
        setting = f"{path}.name" if path in TABLES or path.rpartition(".")[0] not in TABLES else "name"
        name = f", {setting} = {json.dumps(shortened(value))} for instance" if named else ""
        return f"found {shown(value)}; expected a table: set its keys{name}"
    if kind == "finite_number":
        return f"found {what}; expected a finite number"
    if kind == "int_parsing_size":
        return f"found {what}; expected a smaller number"
    return f"found {what}; {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def refuse(problems: Mapping[str, str], tables: Mapping[str, Any], path: str, texts: Mapping[str, str]) -> NoReturn:
    """Raises a RecipeError that says what is wrong, each with the file and line (or the option) that set the key.

    Of more than ``LINES`` problems, the last are named only.
    """
    lines = []
    for dotted, message in list(problems.items())[: LINES if len(problems) <= LINES else LINES - 1]:
        # A key that is not set has no place, though a file may have set it before another dropped it.
        # A missing item is reported where its list was set.
        parent = dotted.rpartition(".")[0]
        written = parent if _at(tables, dotted) is None and isinstance(_at(tables, parent), list) else dotted
        file, line = _place_of(written, path, texts) if _at(tables, written) is not None else (path, None)
        place = f"{file}:{line}" if line and not file.startswith(SET) else shortened(file) if file.startswith(SET) else file
        key = f"{shortened(dotted)}: " if dotted else ""
        lines.append(sentences(f"{place}: {key}{message}"))
    if others := list(problems)[len(lines) :]:
        names = ", ".join(map(shortened, others[: LISTED - len(lines)]))
        more = " and others" if len(problems) > LISTED else ""
        lines.append(f"Also wrong or missing: {names}{more}. Correct them, and validate again.")
    raise RecipeError(*lines)


def _as_list(value: Any) -> str:
    """The list that somebody meant who wrote a single value, or several with commas, in TOML."""
    if not isinstance(value, str):
        return f"[{shown(value)}]"
    words = [word.strip() for word in shortened(value).strip().strip("[](){}").split(",")]
    return f"[{', '.join(_as_toml(word) for word in words if word)}]"


def _as_toml(word: str) -> str:
    try:
        tomllib.loads(f"value = {word}")
    except tomllib.TOMLDecodeError:
        return json.dumps(word, ensure_ascii=False)
    return word


def _at(tables: Any, path: str) -> Any:
    """The value at a dotted path; None if there is none."""
    for key in path.split(".") if path else ():
        if isinstance(tables, list) and key.isdecimal() and int(key) < len(tables):
            tables = tables[int(key)]
        else:
            tables = tables.get(key) if isinstance(tables, Mapping) else None
    return tables


def _spelled(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[int | str], list[str], list[str]]:
    """A pydantic error location as the recipe's keys, the keys allowed beside the last, and the names of parts allowed in it.

    Inside a union, pydantic adds the name of the chosen part, or of the type, to the location; it is removed here.
    """
    spelled: list[int | str] = []
    holding: list[type[BaseModel]] = []
    tables: list[type[BaseModel]] = [model]
    for key in location:
        if isinstance(key, int) and tables:
            spelled.append(key)
            continue
        if spelled and not tables and isinstance(key, str) and _TYPE.fullmatch(key):
            continue
        chosen = [table for table in tables if "name" in table.model_fields and table.model_fields["name"].default == key]
        annotations = [table.model_fields[str(key)].annotation for table in tables if key in table.model_fields]
        if chosen and not annotations:
            tables = chosen
            continue
        spelled.append(key)
        holding, tables = tables, [table for annotation in annotations for table in _tables_in(annotation)]
    names = [str(table.model_fields["name"].default) for table in tables if "name" in table.model_fields]
    return spelled, list(holding[0].model_fields) if len(holding) == 1 else [], names


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation: the model itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for inner in get_args(annotation) for table in _tables_in(inner)]


def _alone(path: str, allowed: Sequence[str]) -> str:
    """The cure where a file stands for a whole table, and the table has other keys; empty where that is not what is wrong."""
    table, _, key = path.rpartition(".")
    kind = TABLES.get(table)
    file = kind.default_with if kind is not None else None
    if file is None or key == "name":
        return ""
    if key == file:
        return f': without a name, it stands alone. Replace the whole section [{table}] by it, or unset = ["{table}"] in a base.'
    if set(allowed) == {"name", file}:
        return f": {file} stands alone, since settings are in its file. Leave out the other keys of [{table}], or {file}."
    return ""


def _suggestion(location: Sequence[int | str], allowed: Sequence[str]) -> str:
    hint = did_you_mean(shortened(str(location[-1])), allowed)
    return f"{hint} Allowed: {', '.join(allowed)}." if allowed else hint


def _place_of(dotted: str, path: str, texts: Mapping[str, str]) -> tuple[str, int | None]:
    """File and line that set a dotted key; ``path`` and no line if none does."""
    # The items of a list are on the line of their key, unless each is a table of its own.
    while kind_at(dotted) is None and (above := dotted.rpartition("."))[2].isdecimal():
        dotted = above[0]
    table, _, key = dotted.rpartition(".")
    for file, text in texts.items():
        inside, items = "", dict[str, int]()
        for number, line in enumerate(text.splitlines(), start=1):
            header = re.match(r"\s*(\[+)([^\[\]]+)\]", line)
            if header:
                inside = header[2].replace(" ", "")
                if header[1] == "[[":
                    items[inside] = items.get(inside, -1) + 1
                    inside = f"{inside}.{items[inside]}"
                if inside == dotted:
                    return file, number
            elif inside == table and re.match(rf"\s*{re.escape(key)}\s*[=.]", line):
                return file, number
    return path, None
