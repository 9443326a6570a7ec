"""What messages advise exists: commands, options, extras and settings are collected from the strings of rarkit's code."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache

import pytest
import typer

import rarkit
from rarkit.cli.app import app
from rarkit.engine.settings import TrainSettings
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.recipe.schema import Recipe
from rarkit.registry.kinds import KINDS
from rarkit.sampling.settings import SampleSettings
from tests.rules import ROOT, modules, none

OTHERS = {"--nproc-per-node", "--standalone", "--cells"}
"""Options of torchrun, and names of the report's styles."""
PROSE = {"can", "does", "exported", "has", "is", "left", "leaves", "made", "needs", "reads", "to", "was", "wrote"}
"""Words that may follow "rarkit" where it is no command."""


@cache
def messages() -> tuple[tuple[str, str], ...]:
    """Place and text of each string that is no docstring."""
    return tuple(texts())


def texts() -> Iterator[tuple[str, str]]:
    """Place and text of each string that is no docstring; what f-strings fill in is a blank."""
    for module in modules().values():
        if module.room == "testing":
            continue
        documented = {
            statement.value
            for node in module.nodes
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            for statement in node.body
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        }
        inner = {part for node in module.nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node}
        for node in module.nodes:
            if isinstance(node, ast.JoinedStr):
                yield (
                    module.at(node.lineno),
                    "".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values),
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented and node not in inner:
                yield module.at(node.lineno), node.value


def commands(command: typer.core.TyperCommand, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command and group under its name, with its options."""
    yield name, {option for parameter in command.params for option in parameter.opts} | {"--help"}
    for below, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {below}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))
OPTIONS = set[str]().union(*COMMANDS.values())


def bracketed(command: typer.core.TyperCommand, name: str = "") -> Iterator[tuple[str, str]]:
    """Every word in brackets that a help text has, with the command that prints it."""
    for part in (command, *command.params):
        yield from ((name, word) for word in re.findall(r"\[[^\]]*\]", getattr(part, "help", None) or ""))
    for below, inner in getattr(command, "commands", {}).items():
        yield from bracketed(inner, f"{name} {below}".strip())


def test_help_keeps_words_in_brackets(rarkit):
    """They are no markup."""
    found = set(bracketed(typer.main.get_command(app)))
    assert {("tokenizer evaluate", "[dataset]"), ("tokenizer evaluate", "[evaluate]"), ("export", "[tokenizer]")} <= found
    for name, word in found:
        code, out, _ = rarkit(*name.split(), "--help")
        assert (code, word in out, f"\\{word}" in out) == (0, True, False), (name, word)


def test_options_and_commands_exist():
    faults = []
    for place, text in messages():
        faults += [
            f"{place}: no command has {option}"
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", text)
            if option not in OPTIONS | OTHERS
        ]
        for first, second in re.findall(r"(?<![\w./-])rarkit ([a-z_]+)(?: ([a-z]+))?", text):
            groups = {name.split()[0] for name in COMMANDS if " " in name}
            if first not in COMMANDS and first not in PROSE:
                faults.append(f"{place}: there is no rarkit {first}")
            elif first in groups and second and f"{first} {second}" not in COMMANDS:
                faults.append(f"{place}: there is no rarkit {first} {second}")
    none(faults)


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    none(
        [
            f"{place}: no extra {name}"
            for place, text in messages()
            for name in re.findall(r"rarkit\[(\w+)\]", text)
            if name not in extras
        ]
    )


def test_settings_exist():
    tables = {"train": [TrainSettings], "sample": [SampleSettings], "evaluate": [EvaluateSettings]}
    for kind in KINDS.values():
        tables[kind.table] = [*rarkit.parts().of_kind(kind.name).values()]
    known = {f"{table}.{key}" for table, owners in tables.items() for owner in owners for key in owner.model_fields}
    known |= set(tables) | {f"{table}.{key}" for table in ("train", "test") for key in ("npz", "tar", "toml")}
    known.add("model.safetensors")  # a file, too
    names = "|".join(name for name in Recipe.model_fields if name in {table.split(".")[0] for table in tables})
    none(
        [
            f"{place}: no setting {setting}"
            for place, text in messages()
            if " " in text
            for setting in re.findall(rf"(?<![\w./-])(?:{names})\.[a-z_]+(?![\w(])", text)
            if setting not in known
        ]
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_are_shown_without_a_value(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        app([*name.split(), "--help"])
    shown = capsys.readouterr().out
    assert "--help" in shown
    assert "<bool>" not in shown
