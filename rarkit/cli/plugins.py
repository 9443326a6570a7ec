"""``rarkit plugins``: lists, shows and checks plugins, and begins new ones."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import AsJson, Commands, Quiet, print_json
from rarkit.errors import CapabilityError, UserError, did_you_mean

if TYPE_CHECKING:
    from rarkit.registry.loader import PluginRecord
    from rarkit.testing.report import PartReport

plugins = typer.Typer(cls=Commands, no_args_is_help=True, help="Inspect, check and begin plugins.")
PluginName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a plugin, as rarkit plugins list has it.")]


@plugins.command("list")
def plugins_list(as_json: AsJson = False) -> None:
    """List plugins with distribution, version, status and parts, or the cause if a plugin is broken."""
    from rarkit.cli import show
    from rarkit.registry.loader import present

    loaded = present()
    print_json(show.plugins_as_json(loaded)) if as_json else show.print_plugins(loaded)


@plugins.command("show")
def plugins_show(name: PluginName, as_json: AsJson = False) -> None:
    """Show a plugin: where it is from, what it requires, and its parts with their settings."""
    from rarkit.cli import show_plugin

    record = _record(name)
    print_json(show_plugin.as_json(record)) if as_json else show_plugin.printed(record)


@plugins.command("check")
def plugins_check(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of a plugin; all but rarkit's own parts by default.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check that the parts of installed plugins keep the promises of their kinds. Exits with 1 if one does not."""
    from rarkit.registry.loader import BUILTIN, installed

    chosen = [_record(name)] if name else [record for record in installed().records if record.source.plugin != BUILTIN]
    checked = {record.source.plugin: _checked(record, quiet) for record in chosen}
    broken = {record.source.plugin: record.cause for record in chosen if record.status != "loaded"}
    if as_json:
        print_json(
            [
                {"plugin": record.source.plugin, "status": record.status, "cause": record.cause}
                | {"parts": [report.as_json() for report in checked[record.source.plugin]]}
                for record in chosen
            ]
        )
    else:
        for record in chosen:
            _print_checked(record, checked[record.source.plugin])
        if not chosen:
            echo("There are no plugins but rarkit's own parts. rarkit plugins new NAME --kind KIND begins one.")
    if broken or any(report.failures for reports in checked.values() for report in reports):
        raise typer.Exit(1)


@plugins.command("new")
def plugins_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the distribution, as in rarkit-columns.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Kind of the part: scan_order, tokenizer, …")],
    part: Annotated[str | None, typer.Option("--name", metavar="PART", help="Name of the part; NAME without rarkit-.")] = None,
    folder: Annotated[Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Write here; ./NAME by default.")] = None,
) -> None:
    """Begin a plugin: a distribution with a part that works and its tests, to be changed into yours."""
    from rarkit.scaffold.new_plugin import named, write

    plugin = named(name, kind, part)
    place = folder or Path(plugin.distribution)
    for path in write(plugin, place):
        echo(f"wrote {path}")
    echo("")
    code = place / plugin.module
    echo(f"The {plugin.kind.singular} {plugin.part!r} works already. Install and try it, then make it yours in {code}:")
    for command in (
        ["pip", "install", "-e", f"{place}[dev]"],
        ["rarkit", "plugins", "check", plugin.part],
        ["python", "-m", "pytest", str(place)],
    ):
        echo(f"  {shlex.join(command)}")


def _record(name: str) -> PluginRecord:
    from rarkit.registry.contract import named
    from rarkit.registry.loader import installed

    records = {record.source.plugin: record for record in installed().records}
    if name not in records:
        # People also think of a plugin by its distribution.
        by_distribution = {record.source.distribution: record for record in records.values()}
        if name in by_distribution:
            return by_distribution[name]
        brought = [f"{named(part)}." for record in records.values() for _, part in record.parts if part.part_name() == name]
        raise UserError(
            f"there is no plugin {name!r}{did_you_mean(name, records)} rarkit plugins list has all that are installed.",
            *(f"But there is the {part}" for part in brought),
        )
    return records[name]


def _checked(record: PluginRecord, quiet: bool) -> list[PartReport]:
    if not record.parts:
        return []
    lacking = [library for library in ("pytest", "hypothesis") if find_spec(library) is None]
    if lacking:
        raise CapabilityError(f"checks need {' and '.join(lacking)}: pip install pytest hypothesis")
    from rarkit.runtime.progress import Reporter
    from rarkit.testing.report import checked

    reporter = Reporter(quiet=quiet)
    reports = []
    with reporter.task(f"checking {record.source.plugin}", len(record.parts), "parts") as advance:
        for _, part in record.parts:
            reports.append(checked(part))
            advance(1)
    return reports


def _print_checked(record: PluginRecord, reports: list[PartReport]) -> None:
    if record.status != "loaded":
        echo(f"{record.source}: {record.status}: {record.cause}")
    for report in reports:
        for line in report.lines():
            echo(line, lines=True)
