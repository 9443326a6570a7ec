"""docs/api.md: the public names with their signatures, the hooks and the commands. ``docs/generate.py`` writes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache, cached_property
from importlib import import_module
from types import NoneType
from typing import Any, ForwardRef

from typer.main import get_command

import rarkit
from rarkit.cli.app import app
from rarkit.registry.kinds import KINDS

PUBLIC = (
    "rarkit",
    *(f"rarkit.{name}" for name in ("errors", "datasets", "models", "sampling", "training", "tokenizers", "testing")),
)
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
