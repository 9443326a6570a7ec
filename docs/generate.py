"""Writes docs/parts.md, and the tables of settings in docs/recipes.md, from the code: ``python docs/generate.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rarkit
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.registry.kind import Kind
from rarkit.registry.kinds import KINDS
from rarkit.sampling.settings import SampleSettings
from rarkit.training.settings import TrainSettings

DOCS = Path(__file__).parent
TABLES: dict[str, type[rarkit.Settings]] = {"train": TrainSettings, "sample": SampleSettings, "evaluate": EvaluateSettings}
"""The tables of a recipe that name no part."""
TABLE = re.compile(r"<!-- settings of \[(\w+)\] -->\n.*?<!-- end -->", re.DOTALL)
INTRODUCTION = """\
# Parts

The parts that come with rarkit, by the recipe table that selects them. `docs/generate.py` generates this page from the classes.
`rarkit plugins list` shows all installed parts, including those of other plugins; [plugins](plugins.md) explains how to write one.
"""


def parts_page(parts: rarkit.Parts) -> str:
    """docs/parts.md."""
    return "\n".join([INTRODUCTION, *(line for kind in KINDS.values() for line in family(kind, parts.of_kind(kind.name)))])


def recipes_page(page: str) -> str:
    """docs/recipes.md with its tables of settings regenerated between their marks."""

    def table(match: re.Match[str]) -> str:
        rows = "\n".join(settings(TABLES[match[1]])).rstrip()
        return f"<!-- settings of [{match[1]}] -->\n{rows}\n<!-- end -->"

    return TABLE.sub(table, page)


def family(kind: Kind, parts: rarkit.Registry[Any]) -> Iterator[str]:
    """The section of one kind: its built-in parts."""
    yield f"## {kind.title}\n"
    default = f"; `{kind.default}` unless `name` is given" if kind.default else ""
    yield f"{kind.about[0].upper()}{kind.about[1:]}. Chosen by `[{kind.table}] name = …`{default}.\n"
    for name, part in parts.items():
        if parts.source(name).plugin == "builtin":
            yield f"### {name}\n"
            yield f"`{part.__name__}`. {text(part)}\n"
            yield from settings(part)


def settings(part: type[rarkit.Settings]) -> Iterator[str]:
    """A table of a part's fields, including nested settings."""
    schema = part.model_json_schema()
    rows = list(fields(schema, schema.get("$defs", {})))
    if rows:
        yield from ("| key | value | default | meaning |", "|---|---|---|---|", *rows, "")


def fields(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """One row for each field; a nested table's fields follow it under dotted names."""
    for key, field in schema.get("properties", {}).items():
        if key == "name":
            continue
        default = "required" if key in schema.get("required", []) else f"`{toml(field.get('default'))}`"
        if field.get("default", "") is None:
            default = "–"
        meaning = " ".join(str(field.get("description", "")).split())
        yield cells(f"`{prefix}{key}`", value(field, definitions), default, meaning)
        for option in (field, *field.get("anyOf", [])):
            if "$ref" in option:
                yield from fields(definitions[option["$ref"].rsplit("/", 1)[-1]], definitions, f"{prefix}{key}.")


def value(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The allowed values, in words."""
    if "anyOf" in field:
        options = [value(option, definitions) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(options)
    if "$ref" in field or "oneOf" in field:
        return "a table"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{toml(option)}`" for option in field.get("enum", [field.get("const")]))
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "array": "list"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[bound]:g}" for bound, sign in bounds.items() if bound in field]
    return " ".join([words.get(field.get("type", ""), "value"), ", ".join(limits)]).strip()


def toml(default: Any) -> str:
    """A default as a recipe would write it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, list):
        return f"[{', '.join(toml(item) for item in default)}]"
    if isinstance(default, dict):
        # For a part with many settings the name is enough; its own section has the rest.
        shown = default if len(default) <= 3 or "name" not in default else {"name": default["name"]}
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in shown.items())} }}"
    return str(default)


def text(documented: object) -> str:
    """A docstring as Markdown: its paragraphs, with single backticks."""
    return inspect.cleandoc(documented.__doc__ or "").replace("``", "`")


def cells(*columns: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(column.replace('``', '`').replace('|', chr(92) + '|') for column in columns)} |"


if __name__ == "__main__":
    (DOCS / "parts.md").write_text(parts_page(rarkit.parts()))
    (DOCS / "recipes.md").write_text(recipes_page((DOCS / "recipes.md").read_text()))
