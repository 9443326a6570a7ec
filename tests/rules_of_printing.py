"""What strangers name reaches a terminal by the functions that make it printable, and by nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.rules import Module

PRINTERS = {
    "rarkit.cli.encoding": "echo, and what it stands on",
    "rarkit.runtime.console": "the console",
    "rarkit.cli.failures": "hands Python functions that print",
    "rarkit.cli": "prints a line of its own before anything is imported",
    "rarkit.runtime.output": "says what stdout is",
    "rarkit.testing.part_suite": "code for another Python",
    "rarkit.models.image_generation": "has a method of that name",
}
"""The modules that print otherwise than by ``echo`` and ``PrintableConsole``, and why."""
PRINTING = {"print", "input", "echo_via_pager", "secho", "prompt", "from_markup", "render_markup", "print_exc", "basicConfig"}
CONSOLES = {("rich.console", "Console"), ("rich", "print"), ("rich.markup", "render"), ("rich.text", "Text")}
TEXTS = {"rarkit.rendering.scan_order_text", "rarkit.cli.estimate", "rarkit.runtime.progress"}
"""Modules that use the texts of rich for their own numbers, or as a type."""
CURE = "print by rarkit.cli.encoding.echo or rarkit.runtime.console"


def other_ways_to_print(module: Module) -> Iterator[str]:
    """Ways to the terminal, and uses of rich's markup, that pass by what makes text printable."""
    if module.name in PRINTERS:
        return
    for found in module.imports:
        is_module = not found.name and found.module.split(".")[0] == "rich"
        if is_module or ((found.module, found.name) in CONSOLES and not (found.name == "Text" and module.name in TEXTS)):
            yield f"{module.at(found.line)}: imports {found.name} of {found.module}; {CURE}"
    for node in module.nodes:
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            is_method = name.endswith(".print")  # of a console
            if (name.split(".")[-1] in PRINTING and not is_method) or name in ("typer.confirm", "typer.echo"):
                yield f"{module.at(node.lineno)}: calls {name}; {CURE}"
            if any(argument.arg == "markup" and ast.unparse(argument.value) != "False" for argument in node.keywords):
                yield f"{module.at(node.lineno)}: asks for markup; give styles as arguments"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
            yield f"{module.at(node.lineno)}: uses {ast.unparse(node)}; {CURE}"


def lines_within_arguments(module: Module) -> Iterator[str]:
    """Messages of several lines in one argument: line ends in there are taken for a stranger's."""
    for node in module.nodes:
        told = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(told, ast.Call) and (isinstance(node, ast.Raise) or ast.unparse(told.func) in ("notify", "warnings.warn")):
            texts = [part for part in ast.walk(told) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if any("\n" in text.value for text in texts):
                yield f"{module.at(told.lineno)}: ends a line inside an argument; each argument is a line"
