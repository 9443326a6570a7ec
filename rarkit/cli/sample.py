"""``rarkit sample``: pictures from a run or a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rarkit.cli.options import AsJson, Overrides, print_json

if TYPE_CHECKING:
    from rarkit.inference.drawing import Drawing

DRAWN = 8
"""Images of each class, unless -n says otherwise."""


def sample(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A run's folder, or a checkpoint (.bin, .safetensors; any URL).")],
    preset: Annotated[
        str | None, typer.Option(help="A checkpoint's size: rar_b, rar_l, rar_xl or rar_xxl; brings its released settings.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(metavar="FILE", help="For a checkpoint: weights of the MaskGIT-VQGAN.")] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="CLASS", help="A class, by number or name. Repeatable; else some.")
    ] = None,
    per_class: Annotated[int, typer.Option("-n", "--per-class", help="Images of each class.")] = DRAWN,
    seed: Annotated[int | None, typer.Option(help="Another seed, other images.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Lower is likelier and more alike.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="How much the class counts; 1 is no guidance.")] = None,
    guidance_power: Annotated[float | None, typer.Option(help="Power-cosine guidance; the larger, the later.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens of this probability in all.")] = None,
    scan_order: Annotated[str | None, typer.Option(metavar="NAME", help="Another scan order than the model's own.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, …; auto takes CUDA where there is any.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or, on a CPU, int8.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images drawn at a time.")] = None,
    overrides: Overrides = None,
    output: Annotated[str, typer.Option("--output", "-o", help=".png: a grid; .npz: arrays; else a folder.")] = "samples.png",
    gif: Annotated[str | None, typer.Option(metavar="FILE", help="Also a .gif of the images, token by token.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw images of some classes, from a run or a released checkpoint."""
    from rarkit.files.writable import check_writable
    from rarkit.inference.sample import sample as draw
    from rarkit.recipe.load import override

    settings: dict[str, Any] = {}
    for assignment in overrides or ():
        override(settings, assignment)
    named = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "precision": precision, "batch_size": batch_size}
    settings |= {name: value for name, value in named.items() if value is not None}
    check_writable(output)
    if gif is not None:
        check_writable(gif, (".gif",), folder=False)
    drawing = draw(
        source,
        classes,
        per_class,
        seed=seed,
        preset=preset,
        tokenizer=tokenizer,
        guidance_scale=guidance_scale,
        guidance_power=guidance_power,
        scan_order=scan_order,
        device=device,
        quiet=quiet,
        **settings,
    )
    written = [*drawing.save(output), *(drawing.animate(gif) if gif is not None else [])]
    if as_json:
        print_json({"source": source, **_about(drawing), "written": written})
        return
    places = output if gif is None else f"{output} and {gif}"
    count = len(drawing.images_NHWC)
    drawn = f"class {drawing.class_names[0]!r}" if len(drawing.classes) == 1 else f"{len(drawing.classes)} classes"
    typer.echo(f"{count:,} image{'s' if count != 1 else ''} of {drawn}, seed {drawing.seed}: {places}")


def _about(drawing: Drawing) -> dict[str, Any]:
    """What was drawn, and how."""
    settings = drawing.settings.model_dump(
        mode="json", include={"guidance", "temperature", "top_k", "top_p", "precision", "batch_size"}
    )
    return {
        "images": len(drawing.images_NHWC),
        "per_class": drawing.per_class,
        "classes": [{"label": label, "name": name} for label, name in zip(drawing.classes, drawing.class_names, strict=True)],
        "settings": {"seed": drawing.seed, "scan_order": drawing.scan_order, **settings},
    }
