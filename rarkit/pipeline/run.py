"""``rarkit.run``: plans a recipe, executes the plan and publishes the results."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from rarkit.errors import RecipeError, StoreError
from rarkit.files.atomic import write_text
from rarkit.pipeline.execution import StageResult, execute
from rarkit.pipeline.plan import DEFAULT_STORE, Plan, plan
from rarkit.pipeline.preflight import check_ready
from rarkit.pipeline.receipt import RECEIPT, shows, weights_used, write_receipt
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.rehearsal import rehearsal
from rarkit.recipe.schema import Recipe
from rarkit.runtime.devices import resolve_device
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import together
from rarkit.stages.evaluate import metric_records


@final
@dataclass(frozen=True)
class Run:
    """A run of a recipe and its results."""

    plan: Plan
    folder: Path
    """The folder with report, images and numbers."""
    results: tuple[StageResult, ...]
    seconds: float

    @property
    def did_nothing(self) -> bool:
        """Whether every stage was cached."""
        return all(result.action == "cached" for result in self.results)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The metric records of the evaluation; empty if the run has none."""
        output = self.plan.outputs().get("evaluate")
        return [] if output is None else [record.to_json() for record in metric_records(output)]


def run(
    recipe: Recipe,
    store: str = DEFAULT_STORE,
    *,
    device: str = "auto",
    start: str | None = None,
    until: str | None = None,
    force: tuple[str, ...] = (),
    runs: str | Path = "runs",
    quiet: bool = False,
) -> Run:
    """Runs the stages that are not in the store yet, and writes report, images and numbers to ``runs/<recipe>/``.

    Args:
        recipe: a recipe from ``rarkit.load_recipe``.
        store: path or fsspec URL of the store that caches stage outputs.
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` uses CUDA if available.
        start: rerun this stage and all after it.
        until: stop after this stage.
        force: rerun these stages.
        runs: the folder for results.
        quiet: show no progress on stderr.

    Raises:
        RarkitError: the recipe cannot be run, or a stage failed; the message says what to do.
    """
    with together():
        return carry_out(plan(recipe, store, start=start, until=until, force=force), device=device, runs=runs, quiet=quiet)


def carry_out(planned: Plan, *, device: str = "auto", runs: str | Path = "runs", quiet: bool = False) -> Run:
    """Executes a plan and publishes the results. Under ``torchrun``, every rank calls this with the same plan."""
    folder = Path(runs) / planned.recipe.recipe_name
    began = time.monotonic()
    with together() as ranks:
        # This also keeps the first rank from writing before the others have made their plans.
        ranks.agree("the plan", [[stage.name, stage.action, stage.fingerprint] for stage in planned.stages])
        reporter = Reporter(quiet=quiet or not ranks.first)
        if ranks.told(lambda: planned.nothing_to_do and shows(folder, planned.outputs())):
            check_ready(planned, "cpu")
            results = execute(planned, "cpu", reporter, _ignore, ranks)
            return Run(planned, folder, tuple(results), time.monotonic() - began)
        device = ranks.device(resolve_device(device))
        experiment = check_ready(planned, device)
        if not ranks.first:
            results = execute(planned, device, reporter, _ignore, ranks)
            ranks.meet()
            return Run(planned, folder, tuple(results), time.monotonic() - began)
        weights = weights_used(planned.recipe)
        live = _LiveLog(folder / "log.jsonl")
        try:
            results = execute(planned, device, reporter, live.write, ranks)
        finally:
            live.close()
        run = Run(planned, folder, tuple(results), time.monotonic() - began)
        _publish(run, experiment, device, weights)
        ranks.meet()
        return run


def rehearse(recipe: Recipe, *, device: str = "auto", runs: str | Path = "runs", quiet: bool = False) -> Run:
    """Runs a small version of a recipe on generated images in a temporary store; writes a report to ``runs/<recipe>-rehearsal/``.

    Arguments and errors are those of ``run``. A rehearsal runs in a single process.
    """
    with together() as ranks:
        if ranks.size > 1:
            raise RecipeError("a rehearsal runs in one process. Start it without torchrun.")
    device = resolve_device(device)
    small = rehearsal(recipe, device)
    with tempfile.TemporaryDirectory(prefix="rarkit-rehearsal-") as scratch:
        if recipe.train is None:
            small = _with_random_weights(small, f"{scratch}/random.safetensors")
        return run(small, f"{scratch}/store", device=device, runs=runs, quiet=quiet)


def _with_random_weights(recipe: Recipe, path: str) -> Recipe:
    from rarkit.files.weights import write_tensors

    model = recipe.model.create(resolve(recipe).config, recipe.attention.build(), recipe.seed)
    write_tensors(model.state_dict(), path, model.metadata())
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": path})})


def _ignore(stage: str, record: Mapping[str, Any]) -> None:
    """For ranks and runs that write no log."""


@final
class _LiveLog:
    """Writes ``log.jsonl`` during a run; publishing replaces it by the complete log from the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def write(self, stage: str, record: Mapping[str, Any]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Deleted first, so that a symbolic link is replaced rather than followed.
            self._path.unlink(missing_ok=True)
            self._file = self._path.open("x")
        self._file.write(json.dumps({"stage": stage, **record}) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _publish(run: Run, experiment: Experiment, device: str, weights: Mapping[str, Any]) -> None:
    from rarkit.report.publish import publish

    outputs = run.plan.outputs()
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        files = publish(experiment, outputs, run.folder)
        about = {"seconds": round(run.seconds, 3), "device": device, "weights": weights, "files": files}
        metrics = {metric["name"]: metric["value"] for metric in run.metrics}
        receipt = write_receipt(experiment, run.plan.store, outputs, run.results, **about, metrics=metrics)
        write_text(run.folder / RECEIPT, json.dumps(receipt, indent=2) + "\n")
    except OSError as error:
        raise StoreError(
            f"cannot write results to {run.folder}: {error}. The stages' outputs are safe in the store: fix this, and run again."
        ) from error


def as_json(run: Run) -> dict[str, Any]:
    """A run as plain JSON data, for ``rarkit run --json``."""
    return {
        "recipe": run.plan.recipe.recipe_name,
        "folder": str(run.folder),
        "seconds": round(run.seconds, 3),
        "stages": [dataclasses.asdict(result) for result in run.results],
        "metrics": run.metrics,
    }
