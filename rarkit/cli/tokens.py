"""``rarkit tokens``: published pre-tokenized data in and out."""

from __future__ import annotations

from typing import Annotated

import typer

tokens = typer.Typer(no_args_is_help=True, help="Tokens as JSON lines, the form in which pre-tokenized data is published.")
TokenPlace = Annotated[str, typer.Argument(metavar="TOKENS", help="A token store: a path or any fsspec URL.")]
JsonLines = Annotated[str, typer.Argument(metavar="LINES", help="JSON lines, one for each image; .gz and the like are understood.")]


@tokens.command("import")
def tokens_import(
    lines: JsonLines,
    target: TokenPlace,
    grid: Annotated[str, typer.Option(help="HEIGHTxWIDTH of each image's grid of tokens.")] = "16x16",
    codebook_size: Annotated[int, typer.Option(min=1, help="Tokens are below this.")] = 1024,
    classes: Annotated[int, typer.Option(min=1, help="Class ids are below this.")] = 1000,
) -> None:
    """Read JSON lines {"class_id": …, "tokens": […]} into a token store, for train.tokens of a recipe."""
    from rarkit.cache.token_lines import import_tokens
    from rarkit.cli import show
    from rarkit.runtime.progress import Reporter

    size = show.grid_size(grid)
    count = import_tokens(lines, target, grid=size, codebook_size=codebook_size, num_classes=classes, reporter=Reporter())
    typer.echo(f"{count:,} images of {size[0] * size[1]} tokens in {target}")


@tokens.command("export")
def tokens_export(
    source: TokenPlace,
    lines: JsonLines,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
) -> None:
    """Write a token store (an imported one, or the output of a tokenize stage) as JSON lines."""
    from rarkit.cache.token_lines import export_tokens
    from rarkit.runtime.progress import Reporter

    typer.echo(f"{export_tokens(source, lines, split=split, reporter=Reporter()):,} images in {lines}")
