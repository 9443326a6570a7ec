"""Writes docs/parts.md, docs/api.md and the tables of settings in docs/recipes.md from the code: ``python docs/generate.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, ForwardRef

from typer.main import get_command

import rarkit
from rarkit.cli.app import app
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.recipe.contradictions import contradictions
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

PUBLIC = ("rarkit", "rarkit.errors", "rarkit.models", "rarkit.sampling", "rarkit.training", "rarkit.testing")
SMALL = {"hidden_size": 8, "depth": 1, "num_heads": 1}
STILL = {"name": "constant", "ratio": 0.0}
GRIDS = ((4, 4), (16, 16), (7, 7), (6, 8), (1, 32))
"""The grids that the table of scan orders shows."""
MATRIX = """\
Every tokenizer goes with every scan order that supports its grid, and both with every schedule, attention backend and model, but
for what these tables say. `tests/test_matrix.py` plans all combinations of the five, and trains and samples each that works.
"""
PRIVATE = {"rarkit.inference.pipeline", "rarkit.registry.registry"}
"""Modules of classes that only rarkit makes."""
STABLE = """\
# Stable API

What you may build on: the names below with their signatures, the [hooks of plugins](plugins.md), the
[keys of recipes](recipes.md) and [of parts](parts.md), and the [commands](commands.md) with their options and `--json`.
`docs/generate.py` generates this page from the code, and a test fails when they differ, so nothing on it changes by accident.

- Until version 1.0, what is on this page changes in minor versions alone (0.1 → 0.2), never in 0.1.x, and the
  [changelog](../CHANGELOG.md) says how to adapt. What can go on working for a minor version does so, with a `DeprecationWarning`.
- New names, optional arguments, settings with a default and kinds of parts may come at any time.
- Stored outputs and checkpoints of an earlier version are read, or made anew; they are never misread. What recomputes is in the
  changelog.
- All else may change at any time: other modules, names that begin with `_`, the wording of messages, and how things look
  (`repr`, pages, tables). A plugin says which versions it was written for with [`requires_rarkit`](plugins.md).

Shape letters in names are those of the docstrings, which say what each function takes, returns and raises.
"""


def parts_page(parts: rarkit.Parts) -> str:
    """docs/parts.md."""
    families = [line for kind in KINDS.values() for line in family(kind, parts.of_kind(kind.name))]
    return "\n".join([INTRODUCTION, *families, *matrix(parts)])


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


def matrix(parts: rarkit.Parts) -> Iterator[str]:
    """The section on what goes with what."""
    yield "## What goes with what\n"
    yield MATRIX
    models = list(built_in(parts, "models"))
    yield from ("| | " + " | ".join(f"`{name}`" for name in models) + " |", "|---" * (len(models) + 1) + "|")
    for kind, table in (("permutation_schedules", "permutation_schedule"), ("attention_backends", "attention")):
        for name in built_in(parts, kind):
            yield f"| `{name}` | {' | '.join(goes(**{table: name, 'model': model}) for model in models)} |"
    yield "\nScan orders, by height × width of the token grid:\n"
    yield from ("| | " + " | ".join(f"{height} × {width}" for height, width in GRIDS) + " |", "|---" * (len(GRIDS) + 1) + "|")
    for name, order in built_in(parts, "scan_orders").items():
        fits = ("✓" if order().requirement(*grid) is None else "–" for grid in GRIDS)
        yield f"| `{name}` | {' | '.join(fits)} |"
    yield ""


def built_in(parts: rarkit.Parts, kind: str) -> dict[str, Any]:
    registry = parts.of_kind(kind)
    return {name: part for name, part in registry.items() if registry.source(name).plugin == "builtin"}


def goes(model: str, **tables: Any) -> str:
    """Whether a part goes with a model: ✓, or ✓ with the setting that it takes."""
    if why_not(model={"name": model, **SMALL}, **tables) is None:
        return "✓"
    if why_not(model={"name": model, **SMALL, "attention_dropout": 0.0}, **tables) is None:
        return "✓ with `attention_dropout = 0`"
    [(table, name)] = tables.items()
    if table == "permutation_schedule" and name == "constant" and why_not(model={"name": model, **SMALL}, **{table: STILL}) is None:
        return "✓ with `ratio = 0`"
    return "–"


def why_not(**tables: Any) -> str | None:
    """What planning says against a recipe of these parts, or None."""
    data = {"name": "generated", "height": 4, "width": 4, "channels": 1}
    try:
        recipe = rarkit.make_recipe(**({"dataset": data, "tokenizer": "pixel", "train": {"steps": 4, "batch_size": 2}} | tables))
        plan = rarkit.plan(recipe, "memory://matrix")
    except rarkit.RarkitError as error:
        return str(error)
    return str(plan.obstacle) if plan.obstacle is not None else "; ".join(contradictions(recipe).values()) or None


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


def api_page() -> str:
    """docs/api.md."""
    modules = [line for name in PUBLIC for line in module_api(name)]
    hooks = [f"def {kind.hook}() -> list[type[{kind.public[0]}]]" for kind in KINDS.values()]
    typed = [" ".join([name, *words]) for name, words in command_lines(get_command(app))]
    ends = ["## Hooks\n", "```pyi", *hooks, "```\n", "## Commands\n", "```text", *typed, "```"]
    return "\n".join([STABLE, *modules, *ends, ""])


def command_lines(command: Any, name: str = "rarkit") -> Iterator[tuple[str, list[str]]]:
    """Each command with its arguments and options; hidden ones are not public."""
    below = getattr(command, "commands", {})
    if not command.hidden and (not below or name == "rarkit"):
        public = [option for option in command.params if not getattr(option, "hidden", False)]
        yield name, ["/".join(option.opts) if option.opts[0].startswith("-") else option.opts[0].upper() for option in public]
    for word, one in below.items():
        yield from command_lines(one, f"{name} {word}")


def module_api(name: str) -> Iterator[str]:
    """The section of a public module: a line for each name, and one for each public member of its classes."""
    module = import_module(name)
    yield f"## {name}\n"
    yield "```pyi"
    for public in sorted(public_names(module), key=str.lower):
        value = getattr(module, public)
        if name != "rarkit" and getattr(rarkit, public, None) is value:
            yield f"from rarkit import {public}"
        else:
            yield from declaration(public, value)
    yield "```\n"


def public_names(module: Any) -> list[str]:
    own = [name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
    return [name for name in getattr(module, "__all__", own) if name[0] != "_" and not inspect.ismodule(getattr(module, name))]


@cache
def public_classes() -> set[type]:
    public = [getattr(module, name) for module in map(import_module, PUBLIC) for name in public_names(module)]
    return {value for value in public if inspect.isclass(value)}


def declaration(name: str, value: Any) -> Iterator[str]:
    """A name as a stub file has it."""
    if inspect.isclass(value):
        bases = [base.__name__ for base in value.__bases__ if base.__module__.startswith(("rarkit", "torch", "builtins", "abc"))]
        bases = [base for base in bases if base not in ("object", "ABC") and base[0] != "_"]
        yield f"class {name}({', '.join(bases)})" if bases else f"class {name}"
        yield from members(value)
    elif callable(value) and hasattr(value, "__code__"):
        yield f"def {name}{signature(value)}"
    else:
        yield name


def members(value: type) -> Iterator[str]:
    """Fields, properties and methods of a class, of its bases too where these are not public themselves."""
    seen: set[str] = set()
    for cls in value.__mro__:
        if not cls.__module__.startswith("rarkit.") or (cls is not value and cls in public_classes()):
            continue
        for name, annotation in vars(cls).get("__annotations__", {}).items():
            if name[0] != "_" and name not in seen:
                seen.add(name)
                yield f"    {name}: {annotated(annotation)}"
        for name, member in vars(cls).items():
            made_by_rarkit = is_dataclass(cls) or cls.__module__ in PRIVATE
            # What a fixture is to Python depends on the version of pytest.
            is_fixture = hasattr(member, "_pytestfixturefunction")
            if is_fixture or name in seen or not is_public(name) or (name == "__init__" and made_by_rarkit):
                continue
            seen.add(name)
            if isinstance(member, property | cached_property):
                getter = member.fget if isinstance(member, property) else member.func
                yield f"    {name}: {getter.__annotations__['return']}"
            elif isinstance(member, classmethod | staticmethod):
                yield f"    @{type(member).__name__}"
                yield f"    def {name}{signature(member.__func__)}"
            elif inspect.isfunction(member):
                yield f"    def {name}{signature(member)}{'  # abstract' if getattr(member, '__isabstractmethod__', False) else ''}"


def is_public(name: str) -> bool:
    """Whether a member is: not those that pytest or pydantic call."""
    if name[0] == "_":
        return name in ("__init__", "__call__", "__getitem__", "__len__", "__iter__")
    return not name.startswith(("test_", "pytest_", "model_post_init"))


class Written:
    """Shows as its text where a signature shows an annotation or a default."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(function: Any) -> str:
    """Arguments and result as they are written; a default that is no plain value is ``...``."""
    written, empty = inspect.signature(function), inspect.Parameter.empty
    arguments = []
    for argument in written.parameters.values():
        if argument.annotation is not empty:
            argument = argument.replace(annotation=Written(annotated(argument.annotation)))
        if not isinstance(argument.default, NoneType | bool | int | float | str | tuple | type):
            argument = argument.replace(default=Written("..."))
        arguments.append(argument)
    result = written.return_annotation
    shown = written.replace(parameters=arguments, return_annotation=result if result is empty else Written(annotated(result)))
    return str(shown)


def annotated(annotation: Any) -> str:
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


if __name__ == "__main__":
    (DOCS / "api.md").write_text(api_page())
    (DOCS / "parts.md").write_text(parts_page(rarkit.parts()))
    (DOCS / "recipes.md").write_text(recipes_page((DOCS / "recipes.md").read_text()))
