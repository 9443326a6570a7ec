"""``rarkit sample``: images from a run, a bundle or a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import AsJson, Device, Quiet, StoreNow, print_json
from rarkit.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from rarkit.inference.drawing import Drawing

HAVE_OPTIONS = {"classes": "--class", "per_class": "--per-class", "seed": "--seed"}
"""The settings of ``[sample]`` that are arguments of their own here."""
DRAWN = 8
"""Default number of images per class."""
Preset = Annotated[str | None, typer.Option(help="Set a checkpoint's size and sampling settings: rar_b, rar_l, rar_xl or rar_xxl.")]
TokenizerWeights = Annotated[
    str | None, typer.Option(metavar="FILE", help="Decode a checkpoint's tokens with these MaskGIT-VQGAN weights.")
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="CLASS", help="Sample this class, by label, name or synset id; ten by default. Repeatable."),
]
SampleOverrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any sampling setting; the value is TOML. Repeatable."),
]
Unset = Annotated[
    list[str] | None,
    typer.Option(
        "--unset", metavar="KEY", help="Return a sampling setting of the recipe to its default; before --set. Repeatable."
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Write a grid (.png), arrays (.npz) or a folder of images; by default samples.png, or samples-2.png if that is there.",
    ),
]
Gif = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write a .gif that shows the images token by token, and no grid without -o.")
]


def sample(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of a run, or path or URL of a bundle or a checkpoint.")],
    preset: Preset = None,
    tokenizer: TokenizerWeights = None,
    classes: Classes = None,
    per_class: Annotated[int, typer.Option("-n", "--per-class", help="Sample this many images per class.")] = DRAWN,
    seed: Annotated[int | None, typer.Option(help="Set the seed; by default the one that the recipe samples with.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Divide the logits by this temperature.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Set the scale of guidance; 1 is no guidance.")] = None,
    guidance_power: Annotated[float | None, typer.Option(help="Use power-cosine guidance; larger powers guide later.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens up to this total probability.")] = None,
    scan_order: Annotated[str | None, typer.Option(metavar="NAME", help="Use this scan order, not the model's own.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="Sample in float32, bfloat16 or int8 (CPU only).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sample this many images at a time.")] = None,
    overrides: SampleOverrides = None,
    unset: Unset = None,
    output: Output = None,
    gif: Gif = None,
    store: StoreNow = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Sample images of given classes from a run, a bundle or a released checkpoint."""
    from rarkit.files.writable import check_writable, free_name
    from rarkit.inference.sample import sample as draw

    settings = _settings(overrides or ())
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "precision": precision, "batch_size": batch_size}
    settings |= {name: value for name, value in options.items() if value is not None}
    # Whoever names a file means that one; this name nobody asked for.
    output = free_name("samples.png") if output is None and gif is None else output
    if output is not None:
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
        store=store,
        guidance_scale=guidance_scale,
        guidance_power=guidance_power,
        scan_order=scan_order,
        unset=unset or (),
        device=device,
        quiet=quiet,
        **settings,
    )
    written = [*(drawing.save(output) if output is not None else []), *(drawing.animate(gif) if gif is not None else [])]
    if as_json:
        print_json({"source": source, **_about(drawing), "written": written})
    else:
        echo(f"{_summary(drawing)}: {' and '.join(place for place in (output, gif) if place is not None)}")


def _summary(drawing: Drawing) -> str:
    count = len(drawing.images_NHWC)
    drawn = f"class {drawing.class_names[0]!r}" if len(drawing.classes) == 1 else f"{len(drawing.classes)} classes"
    return f"{count:,} image{'s' if count != 1 else ''} of {drawn}, seed {drawing.seed}"


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    from rarkit.recipe.edits import override
    from rarkit.sampling.settings import SampleSettings

    settings: dict[str, Any] = {}
    for assignment in overrides:
        override(settings, assignment)
    for name in settings:
        if name in HAVE_OPTIONS:
            raise UserError(f"--set {name}: rarkit sample has an option for it, {HAVE_OPTIONS[name]}")
        if name not in SampleSettings.model_fields:
            known = [field for field in SampleSettings.model_fields if field not in HAVE_OPTIONS]
            raise UserError(
                f"--set {name}: there is no such sampling setting{did_you_mean(name, known)} Settings: {', '.join(known)}."
            )
    return settings


def _about(drawing: Drawing) -> dict[str, Any]:
    """Classes and settings of a drawing, as plain JSON data."""
    settings = drawing.settings.model_dump(mode="json", exclude={*HAVE_OPTIONS, "npz"})
    return {
        "images": len(drawing.images_NHWC),
        "per_class": drawing.per_class,
        "classes": [{"label": label, "name": name} for label, name in zip(drawing.classes, drawing.class_names, strict=True)],
        "settings": {"seed": drawing.seed, "scan_order": drawing.scan_order, **settings},
    }
