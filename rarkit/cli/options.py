"""Options and output shared by several commands."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Annotated, Any, final

import typer
from typer.core import TyperGroup

from rarkit.cli.encoding import can_print, echo
from rarkit.printable import printable_strings
from rarkit.registry.exits import exits_are_errors
from rarkit.runtime.output import stdout_for_results


def flag(*names: str, help: str, is_eager: bool = False) -> Any:
    """An option without a value. Typer would show a value ``<bool>`` in the help, hence the empty metavar."""
    return typer.Option(*names, help=help, is_eager=is_eager, metavar="")


@final
class Commands(TyperGroup):
    """A group of commands whose help shows Typer's own flags (``--help``, completion) like ``flag``, too."""

    def get_params(self, ctx: Any) -> Any:
        return _without_values(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _without_values(command.get_params(ctx))
        return command


def on_their_own(group: Any) -> None:
    """Makes the commands of a group, and of the groups in it, print only results on stdout, and fail if a part would end them."""
    for command in group.commands.values():
        if hasattr(command, "commands"):
            on_their_own(command)
        else:
            command.callback = stdout_for_results()(exits_are_errors()(command.callback))


def escape_markup(command: Any) -> None:
    """Keeps words in brackets in the help of a command, and of those in it: Typer would read them as styles, and leave them out."""
    for part in (command, *command.params):
        part.help = re.sub(r"\[(?=[a-z#/@])", r"\\[", part.help) if getattr(part, "help", None) else None
    for inner in getattr(command, "commands", {}).values():
        escape_markup(inner)


def _without_values(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


DEFAULT_STORE, STORE_VARIABLE = "rarkit-store", "RARKIT_STORE"
RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="Path or fsspec URL of a TOML recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; the value is TOML. Repeatable.")
]
Unset = Annotated[
    list[str] | None,
    typer.Option(
        "--unset", metavar="KEY", help="Drop a setting or a table of the recipe, as if it were not there; before --set. Repeatable."
    ),
]
StoreUrl = Annotated[
    str,
    typer.Option("--store", envvar=STORE_VARIABLE, metavar="URL", help="Cache stage outputs at this path or fsspec URL."),
]
StoreNow = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="Look for the run's store here; where it was by default.")
]
FromStage = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Rerun this stage and all after it.")]
UntilStage = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")]
ForceStages = Annotated[list[str] | None, typer.Option("--force", metavar="STAGE", help="Rerun this stage. Repeatable.")]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Run on cpu, cuda, …; auto uses CUDA if available (to sample, MPS too).")
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes", metavar="N", min=1, max=2**16, help="Plan for N processes that train together, each on a GPU of its own."
    ),
]
NoWait = Annotated[bool, flag("--no-wait", help="Fail at once if another run is making what is needed, instead of waiting.")]
AllowTracking = Annotated[
    list[str] | None,
    typer.Option("--allow-tracking", metavar="NAME", help="Let this tracker of the recipe send data away. Repeatable."),
]
Quiet = Annotated[bool, flag("--quiet", "-q", help="Show no progress on stderr.")]
AsJson = Annotated[bool, flag("--json", help="Print JSON on stdout.")]
Strict = Annotated[bool, flag("--strict-plugins", help="Fail if any installed plugin is broken.")]


@final
class GpuName(StrEnum):
    """The keys of ``rarkit.runtime.machine.GPUS``."""

    a100 = "a100"
    h100 = "h100"
    h200 = "h200"


def print_json(data: Any) -> None:
    """Prints plain JSON data on stdout, with escapes if its encoding lacks a character."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    echo(printable_strings(text if can_print(text) else json.dumps(data, indent=2)), lines=True)
