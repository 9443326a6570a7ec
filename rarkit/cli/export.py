"""``rarkit export``: model and tokenizer of a run as files, or the model as a folder for other people's machinery."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, final

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import StoreNow, flag
from rarkit.cli.sample import Preset
from rarkit.errors import UserError


@final
class Form(StrEnum):
    """What an export is for."""

    transformers = "transformers"


def export(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Folder of a run; path or URL of a bundle with --tokenizer, of a checkpoint with --to."),
    ],
    folder: Annotated[
        str | None, typer.Argument(metavar="FOLDER", help="With --to, write to this folder.", show_default=False)
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write model, tokenizer, scan order and class names to one .safetensors file, for rarkit.load."
        ),
    ] = None,
    to: Annotated[Form | None, typer.Option(help="Write a folder that AutoModelForCausalLM loads without rarkit.")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this path or URL (.safetensors, .bin) instead of the run's folder."
        ),
    ] = None,
    merged: Annotated[bool, flag("--merged", help="Fold both positional tables into one, for the run's scan order.")] = False,
    preset: Preset = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the tokenizer alone to this .safetensors file, for [tokenizer] weights. With --to, decode a checkpoint's "
            "tokens with these MaskGIT-VQGAN weights.",
        ),
    ] = None,
    store: StoreNow = None,
) -> None:
    """Write the model of a run to a single file for load_rar (and the original code, if not merged), with all that belongs to it to
    a bundle for rarkit.load (--bundle), or to a folder for Hugging Face transformers (--to transformers); or write its tokenizer
    alone to a file for other recipes (--tokenizer)."""
    if tokenizer is not None and to is None:
        _write_tokenizer(source, tokenizer, folder=folder, bundle=bundle, output=output, merged=merged, preset=preset, store=store)
        return
    if bundle is not None and (to is not None or output is not None or merged):
        raise UserError(f"--bundle {bundle} is one file with everything: leave out --to, --output and --merged.")
    if to is None:
        for name, value in (("FOLDER", folder), ("--preset", preset)):
            if value is not None:
                raise UserError(f"{name} {value} goes with --to transformers only: leave it out, or name a file with --output.")
        from rarkit.inference.export import export_bundle, export_model

        if bundle is not None:
            echo(export_bundle(source, bundle, store=store))
            return
        echo(export_model(source, output, merged=merged, store=store))
        return
    if output is not None or merged:
        raise UserError("--to transformers writes a folder, always for the scan order alone: leave out --output and --merged.")
    if folder is None:
        raise UserError(f"name the folder to write: rarkit export {source} --to {to.value} FOLDER")
    from rarkit.inference.to_transformers.export import export_transformers

    echo(export_transformers(source, folder, preset=preset, tokenizer=tokenizer, store=store))


def _write_tokenizer(source: str, file: str, *, store: str | None, **others: Any) -> None:
    from rarkit.inference.export import export_tokenizer

    names = {"folder": "FOLDER", "bundle": "--bundle", "output": "--output", "merged": "--merged", "preset": "--preset"}
    for option, value in others.items():
        if value:
            raise UserError(f"--tokenizer {file} writes one file with the tokenizer alone: leave out {names[option]}.")
    echo(export_tokenizer(source, file, store=store))
