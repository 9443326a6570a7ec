"""``rarkit tokens``: imports and exports pre-tokenized data."""

from __future__ import annotations

from typing import Annotated

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import Commands, NoWait

tokens = typer.Typer(cls=Commands, no_args_is_help=True, help="Import and export pre-tokenized data as JSON lines.")
TokenPlace = Annotated[str, typer.Argument(metavar="TOKENS", help="Path or fsspec URL of a token store.")]
JsonFiles = Annotated[
    list[str],
    typer.Argument(metavar="LINES", help="Files of JSON lines or arrays, or patterns in quotes; may be compressed (.gz, …)."),
]


@tokens.command("import")
def tokens_import(
    lines: JsonFiles,
    target: TokenPlace,
    grid: Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="Set the size of the token grid.")] = "16x16",
    codebook_size: Annotated[int, typer.Option(min=1, help="Set the codebook size; tokens must be below it.")] = 1024,
    classes: Annotated[int, typer.Option(min=1, help="Set the number of classes; class ids must be below it.")] = 1000,
    no_wait: NoWait = False,
) -> None:
    """Import records {"class_id": …, "tokens": […]} into a token store, for train.tokens of a recipe."""
    from rarkit.cache.token_lines import import_tokens
    from rarkit.cli import show
    from rarkit.runtime.progress import Reporter
    from rarkit.runtime.signals import keeping_what_is_finished

    size = show.grid_size(grid)
    with keeping_what_is_finished():
        count = import_tokens(
            lines, target, grid=size, codebook_size=codebook_size, num_classes=classes, reporter=Reporter(), wait=not no_wait
        )
    echo(f"{count:,} images of {size[0] * size[1]} tokens in {target}")


@tokens.command("export")
def tokens_export(
    source: TokenPlace,
    lines: Annotated[str, typer.Argument(metavar="LINES", help="File to write, compressed if it ends in .gz, …; - for stdout.")],
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Export this split: train or test.")] = "train",
) -> None:
    """Export a token store, imported or the output of a tokenize stage, as JSON lines."""
    from rarkit.cache.token_lines import STDOUT, export_tokens
    from rarkit.runtime.progress import Reporter

    count = export_tokens(source, lines, split=split, reporter=Reporter())
    if lines != STDOUT:
        echo(f"{count:,} images in {lines}")
