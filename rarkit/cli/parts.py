"""``rarkit parts``, ``rarkit orders`` and ``rarkit schedules``: the parts that are installed, and what some of them do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import AsJson, Commands, print_json
from rarkit.errors import UserError

orders = typer.Typer(cls=Commands, no_args_is_help=True, help="Inspect scan orders.")
schedules = typer.Typer(cls=Commands, no_args_is_help=True, help="Inspect permutation schedules.")
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the part; the value is TOML. Repeatable."),
]


def list_parts(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="Only parts of this kind: scan_order, tokenizer, …")] = None,
    as_json: AsJson = False,
) -> None:
    """List the parts that recipes can name, of all plugins, with what they do."""
    from rarkit.cli.show_plugin import about
    from rarkit.cli.tables import table_of
    from rarkit.registry.kinds import KINDS, kind_named
    from rarkit.registry.loader import parts
    from rarkit.runtime.console import PrintableConsole

    chosen = list(KINDS.values()) if kind is None else [kind_named(kind)]
    rows = [
        {"kind": one.name, "table": one.table, "name": name, "source": str(registry.source(name)), "about": about(part)}
        for one in chosen
        for registry in [parts().of_kind(one.name)]
        for name, part in registry.items()
    ]
    if as_json:
        print_json(rows)
        return
    table = table_of("table", "name", "distribution", "what it does")
    for row in rows:
        table.add_row(row["table"], row["name"], row["source"].partition(" (")[0], row["about"])
    PrintableConsole().print(table)


@orders.command("show")
def orders_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a scan order.")],
    grid: Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="Set the size of the grid.")] = "8x8",
    settings: Settings = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an image of the path instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a scan order as a grid of the steps at which its cells are visited."""
    from rarkit.cli import show
    from rarkit.files.writable import check_writable

    if png is not None:
        if as_json:
            raise UserError(f"--png {png} writes a picture in place of the numbers: leave out --json, or --png.")
        check_writable(str(png), (".png",), folder=False)
    order, height, width = show.scan_order(name, grid, settings or [])
    if as_json:
        print_json({"order": order.order(height, width).tolist(), "rank": order.rank(height, width).tolist()})
    elif png is not None:
        show.write_order_picture(order, height, width, png)
    else:
        show.print_order(order, height, width)


@schedules.command("show")
def schedules_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a permutation schedule.")],
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=10**9, metavar="STEPS", help="Set the length of the training.")
    ] = 1000,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Show a permutation schedule: the share of samples that are trained in a random order, over a training."""
    from rarkit.cli import show
    from rarkit.rendering.curve_text import curve_text

    schedule = show.part_named("permutation_schedules", name, settings or [])
    points = min(steps, 1000)
    at = [point * steps // points for point in range(points + 1)]
    ratios = [schedule.random_ratio(step, steps) for step in at]
    if as_json:
        print_json({"step": at, "random_ratio": ratios})
    else:
        echo(curve_text(ratios, f"0 … {steps:,} steps"), lines=True)
