"""Writes docs/parts.md from the parts that come with rarkit: python docs/generate_parts.py"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rarkit
from rarkit.registry import hookspecs

PAGE = Path(__file__).with_name("parts.md")
TITLES = {
    "datasets": "Datasets",
    "tokenizers": "Tokenizers",
    "scan_orders": "Scan orders",
    "permutation_schedules": "Permutation schedules",
    "attention_backends": "Attention backends",
    "feature_extractors": "Feature extractors",
}
INTRODUCTION = """\
# Parts

The parts that come with rarkit, by the recipe table that chooses them. This page is written by `docs/generate_parts.py` from the
classes themselves. `rarkit plugins list` shows what is installed, parts of other plugins included; [plugins](plugins.md) tells
how to write one.
"""


def page(parts: rarkit.Parts) -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(line for kind in TITLES for line in family(kind, parts.of_kind(kind)))])


def family(kind: str, parts: rarkit.Registry[Any]) -> Iterator[str]:
    """The section of one kind: what its hook says of it, and its built-in parts."""
    yield f"## {TITLES[kind]}\n"
    said = text(getattr(hookspecs, f"rarkit_{kind}")).removeprefix(f"{TITLES[kind]}: ")
    yield f"{said[0].upper()}{said[1:]}\n"
    for name, part in parts.items():
        if parts.source(name).plugin == "builtin":
            yield f"### {name}\n"
            yield f"`{part.__name__}`. {text(part)}\n"
            yield from settings(part)


def settings(part: type[rarkit.Settings]) -> Iterator[str]:
    """A table of a part's fields, the settings inside them included."""
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
    """What may stand there, in words."""
    if "anyOf" in field:
        options = [value(option, definitions) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(options)
    if "$ref" in field:
        return "a table"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{toml(option)}`" for option in field.get("enum", [field.get("const")]))
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "array": "list"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[bound]:g}" for bound, sign in bounds.items() if bound in field]
    return " ".join([words.get(field.get("type", ""), "value"), ", ".join(limits)]).strip()


def toml(found: Any) -> str:
    """A default as a recipe would write it."""
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, str):
        return f'"{found}"'
    if isinstance(found, list):
        return f"[{', '.join(toml(item) for item in found)}]"
    if isinstance(found, dict):
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in found.items())} }}"
    return str(found)


def text(documented: object) -> str:
    """A docstring as Markdown: its paragraphs, with single backticks."""
    return inspect.cleandoc(documented.__doc__ or "").replace("``", "`")


def cells(*columns: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(column.replace('``', '`').replace('|', chr(92) + '|') for column in columns)} |"


if __name__ == "__main__":
    PAGE.write_text(page(rarkit.parts()))
