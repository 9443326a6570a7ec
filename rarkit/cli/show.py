"""The output of the commands: tables, and plain JSON data for ``--json``."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rarkit.cache.output import StageOutput
from rarkit.cache.record import FORMAT
from rarkit.cache.store import Store
from rarkit.cli.estimate import estimate_as_json, print_estimate
from rarkit.cli.units import size
from rarkit.errors import IncompleteError, RecipeError, StoreError
from rarkit.registry.loader import Loaded, parts
from rarkit.runtime.progress import Reporter
from rarkit.scan_orders.base import ScanOrder

if TYPE_CHECKING:
    from rarkit.estimate.estimate import Estimate
    from rarkit.pipeline.plan import Plan
    from rarkit.pipeline.run import Run

MARKS = {"cached": "✓", "run": "→", "not needed": "·", "damaged": "✗", "left out": "·", "blocked": "?"}
NEWER = "from a newer rarkit"


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_plan(plan: Plan, estimate: Estimate | None = None) -> None:
    """Prints each stage with its action and reason, then the estimate."""
    table = _table("", "stage", "fingerprint", "action", "reason")
    for stage in plan.stages:
        table.add_row(MARKS[stage.action], stage.name, (stage.fingerprint or "?")[:10], stage.action, stage.reason)
    console = _console()
    console.print(f"[bold]{plan.recipe.title}[/bold]  ({plan.recipe.recipe_name}, store {plan.store.url})", markup=True)
    console.print(table)
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
        "needs": estimate_as_json(estimate),
    }


def print_run(run: Run) -> None:
    """Prints the metrics of a run, and the path of its report."""
    from rarkit.evaluation.record import MetricRecord
    from rarkit.report.terminal import metrics_table

    console = _console()
    if run.plan.recipe.is_rehearsal:
        console.print("This was a rehearsal: every stage runs, but the numbers mean nothing.", style="yellow")
    if run.did_nothing:
        console.print("Nothing to do: everything is in the store already.")
    metrics = [MetricRecord.from_json(record) for record in run.metrics]
    if metrics:
        console.print(metrics_table(metrics))
    console.print(f"Done in {run.seconds:,.1f} s. Report: {run.folder / 'report.html'}", soft_wrap=True)


def print_plugins(loaded: Loaded) -> None:
    """Prints each plugin with its parts, or with the cause if it is broken."""
    table = _table("plugin", "distribution", "status", "parts")
    for record in loaded.records:
        by_kind: dict[str, list[str]] = {}
        for kind, part in record.parts:
            by_kind.setdefault(kind, []).append(part.part_name())
        parts_or_cause = "\n".join(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items()) or record.cause
        source = record.source
        table.add_row(source.plugin, f"{source.distribution} {source.distribution_version}", record.status, parts_or_cause)
    console = _console()
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
    from pydantic import ValidationError

    from rarkit.recipe.edits import override

    height, width = grid_size(grid)
    tables: dict[str, Any] = {}
    for setting in settings:
        override(tables, setting)
    try:
        order = parts().scan_orders[name](**tables)
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}" for mistake in error.errors())
        raise RecipeError(f"scan order {name!r}: {mistakes}") from error
    order.check_grid(height, width)
    return order, height, width


def grid_size(grid: str) -> tuple[int, int]:
    """Height and width from HEIGHTxWIDTH. Raises RecipeError if the text has another form."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", grid)
    if match is None:
        raise RecipeError(f"--grid {grid!r}: expected HEIGHTxWIDTH, as in 8x8")
    return int(match[1]), int(match[2])


def print_order(order: ScanOrder, height: int, width: int) -> None:
    """Prints the grid, with the step at which each cell is visited."""
    from rarkit.rendering.scan_order_text import scan_order_text

    console = _console()
    columns = console.width if console.is_terminal else None
    console.print(scan_order_text(order.order(height, width), height, width, columns=columns), soft_wrap=True)


def write_order_picture(order: ScanOrder, height: int, width: int, path: Path) -> None:
    """Writes the path of a scan order as a PNG."""
    from rarkit.rendering.pictures import scan_order_image
    from rarkit.rendering.png import write_png

    write_png(scan_order_image(order.order(height, width), height, width), path)


def outputs(store: str, names: list[str] | None) -> list[StageOutput]:
    """The outputs with these names; all outputs if no name is given.

    Raises:
        StoreError: there is no store, or a name matches no output.
    """
    place = Store(store)
    if not place.filesystem.exists(place.root):
        raise StoreError(f"there is no store {store!r}. Name the store of your runs with --store.")
    stored = list(place.outputs())
    if not names:
        return stored
    chosen: list[StageOutput] = []
    for name in names:
        stage, _, prefix = name.partition("/")
        matching = [output for output in stored if output.stage == stage and output.fingerprint.startswith(prefix)]
        if not matching:
            known = ", ".join(sorted({output.stage for output in stored})) or "nothing"
            raise StoreError(f"store {store!r} has no output {name!r}. It holds: {known}. See rarkit cache ls.")
        chosen += [output for output in matching if output not in chosen]
    return chosen


def output_as_json(output: StageOutput) -> dict[str, Any]:
    """An output as plain JSON data; what cannot be read from its record is None."""
    state, record = _state(output)
    return {
        "stage": output.stage,
        "fingerprint": output.fingerprint,
        "complete": bool(record.get("complete")),
        "state": state,
        "recipe": record.get("recipe_name"),
        "finished": record.get("finished"),
        "bytes": output.bytes_used(),
        "path": output.path,
    }


def _state(output: StageOutput) -> tuple[str, dict[str, Any]]:
    """The state of an output in ``rarkit cache ls``, and its record (empty if it cannot be read)."""
    try:
        written = output.format or FORMAT
    except IncompleteError:
        return "damaged", {}
    if written > FORMAT:
        return NEWER, {}
    record = output.record()
    state = "complete" if record.get("complete") else "unfinished"
    return (f"{state}, from an older rarkit" if written < FORMAT else state), record


def print_outputs(outputs: list[StageOutput]) -> None:
    """Prints the outputs as a table."""
    table = _table("stage", "fingerprint", "recipe", "state", "size", "finished")
    for output in outputs:
        row = output_as_json(output)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["finished"])) if row["finished"] else ""
        table.add_row(row["stage"], row["fingerprint"], row["recipe"] or "", row["state"], size(row["bytes"]), when)
    console = _console()
    console.print(table if outputs else "The store is empty.")


def verified(output: StageOutput) -> str | None:
    """Reads every byte of an output; returns what is wrong with it, or None."""
    state, record = _state(output)
    if state == NEWER:
        return "written by a newer rarkit: update rarkit to read it"
    try:
        blocks = sum(output.layout(name).blocks for name in record.get("arrays", {}))
        with Reporter().task(f"{output.stage}/{output.fingerprint[:10]}", blocks, "chunks") as advance:
            return output.verify(advance)
    except IncompleteError as error:
        return str(error.__cause__ or error)


def print_verified(rows: list[tuple[StageOutput, str | None]]) -> None:
    """Prints the state of each output, with the cure if it is damaged."""
    console = _console()
    for output, defect in rows:
        cure = f" (run its recipe again with --force {output.stage}, or rarkit cache rm {output.stage}/{output.fingerprint})"
        state = "intact" if defect is None else f"damaged: {defect}{cure}"
        console.print(f"{output.stage}/{output.fingerprint}: {state}", soft_wrap=True)
