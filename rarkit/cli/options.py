"""What several commands share: options, and JSON for scripts."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, final

import typer

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML recipe: a path or any fsspec URL.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; the value is TOML. Repeatable.")
]
StoreUrl = Annotated[
    str, typer.Option("--store", envvar="RARKIT_STORE", metavar="URL", help="Where stage outputs are cached: any fsspec URL.")
]
FromStage = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Run this stage and all after it anew.")]
UntilStage = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")]
ForceStages = Annotated[list[str] | None, typer.Option("--force", metavar="STAGE", help="Run this stage anew. Repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")]
Strict = Annotated[bool, typer.Option("--strict-plugins", help="Refuse to go on where any installed plugin is broken.")]


@final
class GpuName(StrEnum):
    """The keys of ``rarkit.runtime.machine.GPUS``."""

    a100 = "a100"
    h100 = "h100"
    h200 = "h200"


DEFAULT_STORE = "rarkit-store"


def print_json(data: Any) -> None:
    """Plain data on stdout."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
