"""The commands. Heavy imports happen inside them, so that ``--help`` is quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from rarkit.errors import RarkitError

if TYPE_CHECKING:
    from rarkit.recipe.schema import Recipe

app = typer.Typer(
    name="rarkit",
    help="Autoregressive image generation in which the order of the tokens is a first-class thing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
DEFAULT_STORE = "rarkit-store"


def main() -> NoReturn:
    """The ``rarkit`` command. Ends with 0, with 2 for a mistake in what was asked for, with 1 for what went wrong on the way."""
    try:
        app(prog_name="rarkit")
    except RarkitError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)


def _load(path: str, overrides: list[str] | None, strict: bool) -> Recipe:
    from rarkit.recipe.load import load_recipe

    return load_recipe(path, overrides or (), strict_plugins=strict)


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"rarkit {installed('rarkit')}")
        raise typer.Exit


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    store: StoreUrl = DEFAULT_STORE,
    device: Annotated[str, typer.Option(help="cpu, cuda, …; auto takes CUDA where there is any.")] = "auto",
    runs: Annotated[Path, typer.Option(help="Folder for pictures and numbers.")] = Path("runs"),
    start: FromStage = None,
    until: UntilStage = None,
    force: ForceStages = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Run every stage on small stand-ins, to see that it would work.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: AsJson = False,
    strict_plugins: Strict = False,
) -> None:
    """Run a recipe: whatever is not in the store yet, then a report in runs/RECIPE/."""
    from rarkit.cli import show
    from rarkit.stages.pipeline import plan as make_plan

    loaded = _load(recipe, overrides, strict_plugins)
    if rehearse:
        from rarkit.workflow import as_json as rehearsal_as_json
        from rarkit.workflow import rehearse as run_rehearsal

        rehearsed = run_rehearsal(loaded, device=device, runs=runs, quiet=quiet)
        _print_json(rehearsal_as_json(rehearsed)) if as_json else show.print_run(rehearsed)
        return
    planned = make_plan(loaded, store, start=start, until=until, force=tuple(force or ()))
    if dry_run:
        _print_json(show.plan_as_json(planned)) if as_json else show.print_plan(planned)
        return
    from rarkit.workflow import as_json as run_as_json
    from rarkit.workflow import carry_out

    if not quiet and not as_json:
        show.print_plan(planned)
    finished = carry_out(planned, device=device, runs=runs, quiet=quiet)
    _print_json(run_as_json(finished)) if as_json else show.print_run(finished)


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    store: StoreUrl = DEFAULT_STORE,
    start: FromStage = None,
    until: UntilStage = None,
    force: ForceStages = None,
    as_json: AsJson = False,
    strict_plugins: Strict = False,
) -> None:
    """Say what a run would do and why, and start nothing."""
    from rarkit.cli import show
    from rarkit.stages.pipeline import plan as make_plan

    planned = make_plan(_load(recipe, overrides, strict_plugins), store, start=start, until=until, force=tuple(force or ()))
    _print_json(show.plan_as_json(planned)) if as_json else show.print_plan(planned)


@app.command()
def validate(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False, strict_plugins: Strict = False) -> None:
    """Check a recipe, and print it whole: defaults, extends and overrides folded in."""
    from rarkit.recipe.text import to_toml
    from rarkit.stages.base import model_grid

    loaded = _load(recipe, overrides, strict_plugins)
    model_grid(loaded)
    if as_json:
        _print_json(loaded.model_dump(mode="json"))
    else:
        typer.echo(to_toml(loaded), nl=False)
        typer.secho(f"{recipe} is valid.", fg="green", err=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, with the parts that are installed here."""
    from rarkit.recipe.text import json_schema
    from rarkit.registry.loader import registry

    _print_json(json_schema(registry()))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder: runs/RECIPE.")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where to: .safetensors or .bin, any fsspec URL.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Fold both positional tables into one for the scan order.")] = False,
) -> None:
    """Write the model of a run as one file, which load_rar reads (and the original code, if not merged)."""
    from rarkit.runs import export_model

    typer.echo(export_model(run, output, merged=merged))


plugins = typer.Typer(no_args_is_help=True, help="The plugins that are installed, and what they bring.")
app.add_typer(plugins, name="plugins")


@plugins.command("list")
def plugins_list(as_json: AsJson = False) -> None:
    """List each plugin: its distribution, version, parts and status, and what broke a broken one."""
    from rarkit.cli import show
    from rarkit.registry.loader import installed

    loaded = installed()
    _print_json(show.plugins_as_json(loaded)) if as_json else show.print_plugins(loaded)


orders = typer.Typer(no_args_is_help=True, help="Scan orders.")
app.add_typer(orders, name="orders")


@orders.command("show")
def orders_show(
    name: Annotated[str, typer.Argument(help="A scan order, by name.")],
    grid: Annotated[str, typer.Option(help="HEIGHTxWIDTH.")] = "8x8",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the order.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a picture instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a scan order: the step at which each cell is visited."""
    from rarkit.cli import show

    order, height, width = show.scan_order(name, grid, settings or [])
    if as_json:
        _print_json({"order": order.order(height, width).tolist(), "rank": order.rank(height, width).tolist()})
    elif png is not None:
        show.write_order_picture(order, height, width, png)
    else:
        show.print_order(order, height, width)


tokens = typer.Typer(no_args_is_help=True, help="Tokens as JSON lines, the form in which pre-tokenized data is published.")
app.add_typer(tokens, name="tokens")
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
    from rarkit.cli import show
    from rarkit.stages.progress import Reporter
    from rarkit.token_files import import_tokens

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
    from rarkit.stages.progress import Reporter
    from rarkit.token_files import export_tokens

    typer.echo(f"{export_tokens(source, lines, split=split, reporter=Reporter()):,} images in {lines}")


cache = typer.Typer(no_args_is_help=True, help="The store: what stages have left there.")
app.add_typer(cache, name="cache")
OutputNames = Annotated[
    list[str] | None, typer.Argument(metavar="[STAGE[/FINGERPRINT]]...", help="Outputs, by stage or stage/fingerprint.")
]


@cache.command("ls")
def cache_ls(names: OutputNames = None, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List stage outputs: which recipe made them, when, how large, whether whole."""
    from rarkit.cli import show

    rows = show.outputs(store, names)
    _print_json([show.output_as_json(output) for output in rows]) if as_json else show.print_outputs(rows)


@cache.command("rm")
def cache_rm(
    names: Annotated[list[str], typer.Argument(metavar="STAGE[/FINGERPRINT]...", help="Outputs, by stage or stage/fingerprint.")],
    store: StoreUrl = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove stage outputs from the store."""
    from rarkit.cli import show

    found = show.outputs(store, names)
    for output in found:
        if yes or typer.confirm(f"Remove {output.stage}/{output.fingerprint} ({show.size(output.bytes_used())})?"):
            output.remove()
            typer.echo(f"removed {output.stage}/{output.fingerprint}")


@cache.command("verify")
def cache_verify(names: OutputNames = None, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Read every chunk and compare its checksum; exit code 1 if anything is damaged."""
    from rarkit.cli import show

    rows = [(output, show.verified(output)) for output in show.outputs(store, names)]
    if as_json:
        _print_json([{"stage": output.stage, "fingerprint": output.fingerprint, "defect": defect} for output, defect in rows])
    else:
        show.print_verified(rows)
    if any(defect is not None for _, defect in rows):
        raise typer.Exit(1)
