"""``rarkit tokenizer``: tokenizers by themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import DEFAULT_STORE, STORE_VARIABLE, AsJson, Commands, Device, Quiet, print_json

if TYPE_CHECKING:
    from rarkit.inference.tokenizer_evaluation import TokenizerEvaluation

tokenizer = typer.Typer(cls=Commands, no_args_is_help=True, help="Measure tokenizers by themselves.")
MOST = 50_000
"""Images that are measured unless told otherwise: those of ImageNet's validation."""


@tokenizer.command("evaluate")
def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder of a run; or path or URL of a recipe, a bundle or a tokenizer's file.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Measure the images of this recipe, or dataset by name, not those of the source's recipe."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a setting of [dataset] or [evaluate]; the value is TOML. Repeatable."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Measure train or test; test, if there is one.")] = None,
    images: Annotated[int, typer.Option("-n", "--images", metavar="N", min=1, help="Measure at most N images.")] = MOST,
    show: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a .png of some images, each above its reconstruction.")
    ] = None,
    device: Device = "auto",
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="Look for the store of the run or recipe here.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Encode and decode images, and measure what is left of them: the same numbers of any tokenizer, on any images."""
    from rarkit.files.writable import check_writable
    from rarkit.inference.tokenizer_evaluation import evaluate_tokenizer

    if show is not None:
        check_writable(show, (".png",), folder=False)
    if store is None and source.lower().endswith(".toml"):
        # Where rarkit run keeps what it made of a recipe; a run knows its own.
        store = os.environ.get(STORE_VARIABLE, DEFAULT_STORE)
    measured = evaluate_tokenizer(
        source, data, split=split, images=images, overrides=overrides or (), store=store, device=device, quiet=quiet
    )
    if show is not None:
        _write_picture(measured, show)
    print_json(_as_json(measured)) if as_json else _print(measured, show)


def _write_picture(measured: TokenizerEvaluation, file: str) -> None:
    from rarkit.files.writable import writing
    from rarkit.rendering.pictures import labelled
    from rarkit.rendering.png import write_png
    from rarkit.report.grids import reconstructions

    with writing(file):
        grid = reconstructions(measured.originals_NHWC, measured.reconstructions_NHWC, f"Images of the split {measured.split!r}")
        write_png(labelled(grid), Path(file))


def _as_json(measured: TokenizerEvaluation) -> dict[str, Any]:
    return {
        "tokenizer": dict(measured.tokenizer),
        "dataset": dict(measured.dataset),
        "split": measured.split,
        "images": measured.images,
        "images_in_all": measured.images_in_all,
        "image_shape": list(measured.image_shape),
        "grid": list(measured.grid),
        "codebook_size": measured.codebook_size,
        "bits_per_image": measured.bits_per_image,
        "bits_per_pixel": measured.bits_per_pixel,
        "metrics": [record.to_json() for record in measured.metrics],
        "lacking": list(measured.lacking),
    }


def _print(measured: TokenizerEvaluation, show: str | None) -> None:
    from rarkit.cli.tables import table_of
    from rarkit.rendering.numbers import number
    from rarkit.runtime.console import PrintableConsole

    console, (height, width, channels) = PrintableConsole(), measured.image_shape
    drawn = "" if measured.images == measured.images_in_all else f", drawn from {measured.images_in_all:,}"
    console.print(
        f"images: {measured.images:,} of the split {measured.split!r}{drawn}, {height}×{width}×{channels}", soft_wrap=True
    )
    console.print(f"[dataset] {_settings(measured.dataset)}", soft_wrap=True)
    console.print(f"[tokenizer] {_settings(measured.tokenizer)}", soft_wrap=True)
    tokens, bits = f"{measured.grid[0]}×{measured.grid[1]} tokens", number(measured.bits_per_image)
    console.print(
        f"{tokens} of {measured.codebook_size:,} codes: {bits} bits per image, {number(measured.bits_per_pixel)} per pixel",
        soft_wrap=True,
    )
    table = table_of("metric", "value", "meaning")
    for metric in measured.metrics:
        arrow, unit = {"higher": " ↑", "lower": " ↓"}.get(metric.better, ""), f" {metric.unit}" if metric.unit else ""
        table.add_row(metric.name + arrow, number(metric.value) + unit, metric.explanation)
    console.print(table)
    for sentence in measured.lacking:
        console.print(sentence, soft_wrap=True)
    if show is not None:
        echo(show)


def _settings(table: Any) -> str:
    """A part's settings in a line, those that are not set left out."""
    import json

    told = {name: value for name, value in table.items() if value is not None}
    return ", ".join(
        f"{name} = {{{_settings(value)}}}" if isinstance(value, dict) else f"{name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in told.items()
    )
