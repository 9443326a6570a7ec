"""The commands. Heavy imports happen inside them, so that ``--help`` is quick."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rarkit.cli.cache import cache
from rarkit.cli.options import (
    DEFAULT_STORE,
    AsJson,
    ForceStages,
    FromStage,
    GpuName,
    Overrides,
    RecipePath,
    StoreUrl,
    Strict,
    UntilStage,
    print_json,
)
from rarkit.cli.sample import sample
from rarkit.cli.tokens import tokens
from rarkit.errors import RankError, RarkitError, RarkitWarning

if TYPE_CHECKING:
    from rarkit.recipe.schema import Recipe

app = typer.Typer(
    name="rarkit",
    help="Autoregressive image generation in which the order of the tokens is a first-class thing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """The ``rarkit`` command. Ends with 0, with 2 for a mistake in what was asked for, with 1 for what went wrong on the way."""
    warnings.formatwarning = _told
    try:
        app(prog_name="rarkit")
    except RarkitError as error:
        if not (isinstance(error, RankError) and error.told):
            typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)


_CODE_AND_ALL = warnings.formatwarning


def _told(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """What users ought to know, without the line of code that noticed it."""
    return (
        f"warning: {message}\n" if issubclass(category, RarkitWarning) else _CODE_AND_ALL(message, category, filename, lineno, line)
    )


def _load(path: str, overrides: list[str] | None, strict: bool) -> Recipe:
    from rarkit.recipe.load import load_recipe

    return load_recipe(path, overrides or (), strict_plugins=strict)


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
    from rarkit.estimate.estimate import estimate
    from rarkit.pipeline.plan import plan as make_plan
    from rarkit.runtime.ranks import together

    with together() as ranks:
        loaded = _load(recipe, overrides, strict_plugins)
        if rehearse:
            from rarkit.pipeline.run import as_json as rehearsal_as_json
            from rarkit.pipeline.run import rehearse as run_rehearsal

            rehearsed = run_rehearsal(loaded, device=device, runs=runs, quiet=quiet)
            print_json(rehearsal_as_json(rehearsed)) if as_json else show.print_run(rehearsed)
            return
        planned = make_plan(loaded, store, start=start, until=until, force=tuple(force or ()))
        if dry_run:
            if ranks.first:
                needed = estimate(planned)
                print_json(show.plan_as_json(planned, needed)) if as_json else show.print_plan(planned, needed)
            return
        if planned.obstacle is not None:
            raise planned.obstacle
        from rarkit.pipeline.run import as_json as run_as_json
        from rarkit.pipeline.run import carry_out

        if ranks.first and not quiet and not as_json:
            show.print_plan(planned)
        finished = carry_out(planned, device=device, runs=runs, quiet=quiet)
        if ranks.first:
            print_json(run_as_json(finished)) if as_json else show.print_run(finished)


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    store: StoreUrl = DEFAULT_STORE,
    start: FromStage = None,
    until: UntilStage = None,
    force: ForceStages = None,
    gpu: Annotated[GpuName, typer.Option(help="The GPU that memory and hours are reckoned for.")] = GpuName.h100,
    as_json: AsJson = False,
    strict_plugins: Strict = False,
) -> None:
    """Say what a run would do and why, what it needs and what is missing here, and start nothing."""
    from rarkit.cli import show
    from rarkit.estimate.estimate import estimate
    from rarkit.pipeline.plan import plan as make_plan

    planned = make_plan(_load(recipe, overrides, strict_plugins), store, start=start, until=until, force=tuple(force or ()))
    needed = estimate(planned, gpu.value)
    print_json(show.plan_as_json(planned, needed)) if as_json else show.print_plan(planned, needed)


@app.command()
def validate(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False, strict_plugins: Strict = False) -> None:
    """Check a recipe, and print it whole: defaults, extends and overrides folded in."""
    from rarkit.recipe.experiment import resolve
    from rarkit.recipe.text import to_toml

    loaded = _load(recipe, overrides, strict_plugins)
    resolve(loaded)
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        typer.echo(to_toml(loaded), nl=False)
        typer.secho(f"{recipe} is valid.", fg="green", err=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, with the parts that are installed here."""
    from rarkit.recipe.text import json_schema
    from rarkit.registry.loader import parts

    print_json(json_schema(parts()))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder: runs/RECIPE.")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where to: .safetensors or .bin, any fsspec URL.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Fold both positional tables into one for the scan order.")] = False,
) -> None:
    """Write the model of a run as one file, which load_rar reads (and the original code, if not merged)."""
    from rarkit.inference.export import export_model

    typer.echo(export_model(run, output, merged=merged))


app.command()(sample)

plugins = typer.Typer(no_args_is_help=True, help="The plugins that are installed, and what they bring.")
app.add_typer(plugins, name="plugins")


@plugins.command("list")
def plugins_list(as_json: AsJson = False) -> None:
    """List each plugin: its distribution, version, parts and status, and what broke a broken one."""
    from rarkit.cli import show
    from rarkit.registry.loader import installed

    loaded = installed()
    print_json(show.plugins_as_json(loaded)) if as_json else show.print_plugins(loaded)


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
        print_json({"order": order.order(height, width).tolist(), "rank": order.rank(height, width).tolist()})
    elif png is not None:
        show.write_order_picture(order, height, width, png)
    else:
        show.print_order(order, height, width)


app.add_typer(tokens, name="tokens")
app.add_typer(cache, name="cache")
