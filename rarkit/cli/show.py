"""The output of the commands: tables, and plain JSON data for ``--json``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarkit.cli.estimate import estimate_as_json, print_estimate
from rarkit.cli.tables import table_of
from rarkit.datasets.links import sentence as links_sentence
from rarkit.errors import RecipeError
from rarkit.registry.kinds import KINDS
from rarkit.registry.loader import Loaded, parts
from rarkit.runtime.console import PrintableConsole, in_lines, styled
from rarkit.scan_orders.base import ScanOrder

if TYPE_CHECKING:
    from rarkit.estimate.estimate import Estimate
    from rarkit.pipeline.plan import Plan
    from rarkit.pipeline.results import Run

MARKS = {"cached": "✓", "run": "→", "not needed": "·", "damaged": "✗", "left out": "·", "blocked": "?", "unknown": "?"}


def print_plan(plan: Plan, estimate: Estimate | None = None) -> None:
    """Prints each stage with its action and reason, then the estimate."""
    table = table_of("", "stage", "fingerprint", "action", "reason")
    for stage in plan.stages:
        table.add_row(MARKS[stage.action], stage.name, (stage.fingerprint or "?")[:10], stage.action, stage.reason)
    console = PrintableConsole()
    console.print(styled(plan.recipe.title, "bold"), f" ({plan.recipe.recipe_name}, store {plan.store.url})")
    console.print(table)
    for setting, place, remote in plan.addresses:
        console.print(f"reads {place} ({setting}{', on another machine' if remote else ''})", soft_wrap=True)
    for tracker in plan.recipe.trackers:
        receiver = tracker.sends_to()
        console.print(f"tracked by {tracker.name}{f', which sends it to {receiver}' if receiver else ''}", soft_wrap=True)
    for sentence in (*plan.lacking, links_sentence(plan.links_out)):
        if sentence:
            console.print(sentence, soft_wrap=True)
    if estimate is not None:
        print_estimate(estimate, console)


def plan_as_json(plan: Plan, estimate: Estimate) -> dict[str, Any]:
    """A plan and its estimate as plain JSON data."""
    stages = [
        {
            "name": stage.name,
            "fingerprint": stage.fingerprint,
            "action": stage.action,
            "reason": stage.reason,
            "upstream": dict(stage.upstream) if stage.fingerprint else dict.fromkeys(stage.upstream),
        }
        for stage in plan.stages
    ]
    return {
        "recipe": plan.recipe.recipe_name,
        "store": plan.store.url,
        "nothing_to_do": plan.nothing_to_do,
        "stages": stages,
        "reads": [address._asdict() for address in plan.addresses],
        "trackers": [{"name": tracker.name, "sends_to": tracker.sends_to()} for tracker in plan.recipe.trackers],
        "lacking": plan.lacking,
        "links_out": dict(plan.links_out),
        "needs": estimate_as_json(estimate),
    }


def print_run(run: Run) -> None:
    """Prints the metrics of a run, and the path of its report."""
    from rarkit.report.terminal import metrics_table

    console = PrintableConsole()
    if run.plan.recipe.is_rehearsal:
        console.print("This was a rehearsal: every stage runs, but the numbers mean nothing.", style="yellow")
    if run.did_nothing:
        console.print("Nothing to do: everything is in the store already.")
    metrics = run.metrics
    if metrics:
        console.print(metrics_table(metrics))
    for sentence in run.lacking:
        console.print(sentence, soft_wrap=True)
    console.print(f"Done in {run.seconds:,.1f} s. Report: {run.folder / 'report.html'}", soft_wrap=True)
    for sentence in _what_comes_next(run):
        console.print(sentence, soft_wrap=True)


def _what_comes_next(run: Run) -> tuple[str, ...]:
    """What to do with a tokenizer that was trained, if the run stopped there."""
    if [result.name for result in run.results] != ["fit"]:
        return ()
    folder = shlex.quote(str(run.folder))
    return (
        "The tokenizer is trained. How well it reconstructs images:",
        f"  rarkit tokenizer evaluate {folder} --show reconstructions.png",
        "A file of it for other recipes:",
        f"  rarkit export {folder} --tokenizer my-tokenizer.safetensors",
        "Next, with the rest of this recipe:",
        f"  {run.plan.recipe.command or 'rarkit run RECIPE'}",
    )


def print_plugins(loaded: Loaded) -> None:
    """Prints each plugin with its parts, or with the cause if it is broken."""
    table = table_of("plugin", "distribution", "status", "parts")
    for record in loaded.records:
        by_kind: dict[str, list[str]] = {}
        for kind, part in record.parts:
            by_kind.setdefault(kind, []).append(part.part_name())
        parts_or_cause = in_lines(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items()) or record.cause
        source = record.source
        table.add_row(source.plugin, f"{source.distribution} {source.distribution_version}", record.status, parts_or_cause)
    console = PrintableConsole()
    console.print(table)
    for conflict in loaded.conflicts:
        console.print(f"conflict: {conflict}", style="red")


def plugins_as_json(loaded: Loaded) -> dict[str, Any]:
    """The plugins as plain JSON data."""
    plugins = [
        {
            "plugin": record.source.plugin,
            "distribution": record.source.distribution,
            "version": record.source.distribution_version,
            "status": record.status,
            "cause": record.cause,
            "requires_rarkit": record.requires_rarkit,
            "parts": [{"kind": kind, "name": part.part_name(), "version": part.version} for kind, part in record.parts],
        }
        for record in loaded.records
    ]
    return {"plugins": plugins, "conflicts": list(loaded.conflicts)}


def scan_order(name: str, grid: str, settings: list[str]) -> tuple[ScanOrder, int, int]:
    """A scan order by name, with settings, and the height and width of the grid.

    Raises:
        RecipeError: the grid or a setting is invalid.
        UnknownPartError: there is no such order.
        GridError: the order does not support the grid.
    """
    height, width = grid_size(grid)
    order: ScanOrder = part_named("scan_orders", name, settings)
    order.check_grid(height, width)
    return order, height, width


def part_named(kind: str, name: str, settings: list[str]) -> Any:
    """A part by kind and name, with settings as ``--set`` has them.

    Raises:
        RecipeError: a setting is invalid.
        UnknownPartError: there is no such part.
    """
    from pydantic import ValidationError

    from rarkit.recipe.edits import override
    from rarkit.recipe.mistakes import problems_of

    tables: dict[str, Any] = {}
    for setting in settings:
        override(tables, setting)
    part: type[Any] = parts().of_kind(kind)[name]
    try:
        return part(**tables)
    except ValidationError as error:
        problems = problems_of(error, part, parts(), ())
        mistakes = "; ".join(f"{path}: {message}" if path else message for path, message in problems.items())
        raise RecipeError(f"{KINDS[kind].singular} {name!r}: {mistakes}") from error


def grid_size(grid: str) -> tuple[int, int]:
    """Height and width from HEIGHTxWIDTH. Raises RecipeError if the text has another form."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", grid)
    if match is None:
        raise RecipeError(f"--grid {grid!r}: expected HEIGHTxWIDTH, as in 8x8")
    return int(match[1]), int(match[2])


def print_order(order: ScanOrder, height: int, width: int) -> None:
    """Prints the grid, with the step at which each cell is visited."""
    from rarkit.rendering.scan_order_text import scan_order_text

    console = PrintableConsole()
    columns = console.width if console.is_terminal else None
    console.print(scan_order_text(order.order(height, width), height, width, columns=columns), soft_wrap=True)


def write_order_picture(order: ScanOrder, height: int, width: int, path: Path) -> None:
    """Writes the path of a scan order as a PNG. Raises StoreError if it cannot be written."""
    from rarkit.files.writable import writing
    from rarkit.rendering.pictures import scan_order_image
    from rarkit.rendering.png import write_png

    with writing(str(path)):
        write_png(scan_order_image(order.order(height, width), height, width), path)
