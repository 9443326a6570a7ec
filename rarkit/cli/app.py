"""The commands. Heavy modules are imported inside them, to keep ``--help`` fast."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer.main import get_command

from rarkit.cli.cache import cache
from rarkit.cli.encoding import echo, printable_toml, replace_what_cannot_be_printed
from rarkit.cli.export import export
from rarkit.cli.failures import print_what_is_foreign_safely, reported
from rarkit.cli.new import new
from rarkit.cli.options import (
    DEFAULT_STORE,
    AllowTracking,
    AsJson,
    Commands,
    Device,
    ForceStages,
    FromStage,
    GpuName,
    NoWait,
    Overrides,
    Processes,
    Quiet,
    RecipePath,
    StoreUrl,
    Strict,
    Unset,
    UntilStage,
    escape_markup,
    flag,
    on_their_own,
    print_json,
)
from rarkit.cli.parts import list_parts, orders, schedules
from rarkit.cli.plugins import plugins
from rarkit.cli.sample import sample
from rarkit.cli.tokenizer import tokenizer
from rarkit.cli.tokens import tokens
from rarkit.errors import DatasetError, NotFetchedError
from rarkit.runtime.output import report_errors_of_stdout
from rarkit.runtime.signals import keeping_what_is_finished, stopping

if TYPE_CHECKING:
    from rarkit.recipe.schema import Recipe

app = typer.Typer(
    cls=Commands,
    name="rarkit",
    help="Train, sample and evaluate autoregressive image models along any order of the tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run_commands() -> NoReturn:
    """Runs the command that ``sys.argv`` names, and exits as ``rarkit.cli.main`` says."""
    replace_what_cannot_be_printed()
    report_errors_of_stdout()
    print_what_is_foreign_safely()
    with reported(), stopping():
        # The code of a command that exits early; one that comes to its end returns nothing.
        code = _command()(prog_name="rarkit", standalone_mode=False)
    sys.exit(code or 0)


@functools.cache
def _command() -> Callable[..., int | None]:
    """The commands, which typer would make anew at each call."""
    command: Any = get_command(app)
    on_their_own(command)
    escape_markup(command)
    return cast("Callable[..., int | None]", command)


def _load(path: str, overrides: list[str] | None, unset: list[str] | None, strict: bool) -> Recipe:
    from rarkit.recipe.load import load_recipe

    return load_recipe(path, overrides or (), unset=unset or (), strict_plugins=strict)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, flag("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        echo(f"rarkit {installed('rarkit')}")
        raise typer.Exit


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    unset: Unset = None,
    store: StoreUrl = DEFAULT_STORE,
    device: Device = "auto",
    runs: Annotated[Path, typer.Option(metavar="FOLDER", help="Write reports to this folder.")] = Path("runs"),
    start: FromStage = None,
    until: UntilStage = None,
    force: ForceStages = None,
    rehearse: Annotated[bool, flag("--rehearse", help="Run a small version of the recipe on generated images.")] = False,
    dry_run: Annotated[bool, flag("--dry-run", help="Print the plan and exit.")] = False,
    no_wait: NoWait = False,
    allow_tracking: AllowTracking = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    strict_plugins: Strict = False,
) -> None:
    """Run the stages of a recipe that are not in the store yet, and write a report to runs/RECIPE/."""
    from rarkit.cli import show
    from rarkit.estimate.estimate import estimate
    from rarkit.files.restraint import fetching
    from rarkit.pipeline.plan import plan as make_plan
    from rarkit.runtime.together import together
    from rarkit.trackers.consent import allowing

    with together() as ranks, allowing(allow_tracking or ()):
        loaded = _load(recipe, overrides, unset, strict_plugins)
        if rehearse:
            from rarkit.pipeline.results import as_json as rehearsal_as_json
            from rarkit.pipeline.run import rehearse as run_rehearsal

            rehearsed = run_rehearsal(loaded, device=device, runs=runs, quiet=quiet)
            print_json(rehearsal_as_json(rehearsed)) if as_json else show.print_run(rehearsed)
            return
        asked: dict[str, Any] = {"start": start, "until": until, "force": tuple(force or ())}
        if dry_run:
            with fetching("little"):
                planned = make_plan(loaded, store, **asked)
                needed = estimate(planned)
            if ranks.first:
                print_json(show.plan_as_json(planned, needed)) if as_json else show.print_plan(planned, needed)
            return
        from rarkit.pipeline.results import as_json as run_as_json
        from rarkit.pipeline.run import carry_out, plan_to_run

        planned = plan_to_run(loaded, store, **asked, quiet=quiet)
        if planned.obstacle is not None:
            raise planned.obstacle
        if ranks.first and not quiet and not as_json:
            show.print_plan(planned)
        with keeping_what_is_finished():
            finished = carry_out(planned, device=device, runs=runs, quiet=quiet, wait=not no_wait)
        if ranks.first:
            print_json(run_as_json(finished)) if as_json else show.print_run(finished)


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    unset: Unset = None,
    store: StoreUrl = DEFAULT_STORE,
    start: FromStage = None,
    until: UntilStage = None,
    force: ForceStages = None,
    gpu: Annotated[GpuName, typer.Option(help="Estimate memory and time for this GPU.")] = GpuName.h100,
    processes: Processes = None,
    measure: Annotated[bool, flag("--measure", help="Time a few steps on this machine.")] = False,
    allow_tracking: AllowTracking = None,
    as_json: AsJson = False,
    strict_plugins: Strict = False,
) -> None:
    """Show what a run would do and why, what it needs, and what is missing here."""
    from rarkit.cli import show
    from rarkit.estimate.estimate import estimate
    from rarkit.files.restraint import fetching
    from rarkit.pipeline.plan import plan as make_plan
    from rarkit.trackers.consent import allowing

    loaded = _load(recipe, overrides, unset, strict_plugins)
    # Around both, so that a machine that does not answer is asked once.
    with fetching("little"), allowing(allow_tracking or ()):
        planned = make_plan(loaded, store, start=start, until=until, force=tuple(force or ()))
        needed = estimate(planned, gpu.value, measure=measure, processes=processes)
    print_json(show.plan_as_json(planned, needed)) if as_json else show.print_plan(planned, needed)


@app.command()
def validate(
    recipe: RecipePath,
    overrides: Overrides = None,
    unset: Unset = None,
    as_json: AsJson = False,
    strict_plugins: Strict = False,
) -> None:
    """Check a recipe, and print it with defaults, extends and overrides resolved."""
    from rarkit.files.restraint import fetching
    from rarkit.recipe.contradictions import check_contradictions
    from rarkit.recipe.experiment import resolve
    from rarkit.recipe.text import to_toml

    loaded = _load(recipe, overrides, unset, strict_plugins)
    try:
        with fetching("nothing"):
            resolve(loaded)
    except NotFetchedError as error:
        rest = "image size, classes, grid and order are not checked; rarkit plan checks them"
        echo(f"{error.place} is on another machine and was not read: {rest}.", fg="yellow", err=True)
    except DatasetError as error:
        raise DatasetError(f"[dataset] {error}") from error
    check_contradictions(loaded)
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        echo(printable_toml(to_toml(loaded)), nl=False, lines=True)
        echo(f"{recipe} is valid.", fg="green", err=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes with the installed parts."""
    from rarkit.recipe.text import json_schema
    from rarkit.registry.loader import parts

    print_json(json_schema(parts()))


app.command()(new)
app.command()(export)
app.command()(sample)

app.add_typer(plugins, name="plugins")
app.command("parts")(list_parts)
app.add_typer(orders, name="orders")
app.add_typer(schedules, name="schedules")
app.add_typer(tokenizer, name="tokenizer")
app.add_typer(tokens, name="tokens")
app.add_typer(cache, name="cache")
