"""``rarkit.run``: plans a recipe, executes the plan and publishes the results."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, final

from rarkit.errors import RarkitWarning, RecipeError
from rarkit.files.atomic import started
from rarkit.pipeline.agreement import check_agreement
from rarkit.pipeline.execution import execute
from rarkit.pipeline.kept_receipts import begin, ended, keep
from rarkit.pipeline.plan import DEFAULT_STORE, Plan, plan
from rarkit.pipeline.preflight import check_ready
from rarkit.pipeline.previews import show_preview
from rarkit.pipeline.receipt import make_receipt, shows, weights_used
from rarkit.pipeline.results import Run
from rarkit.pipeline.run_folder import claimed, folder_of, release, variant, writing_results
from rarkit.pipeline.trial import try_parts
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.make import AnyRecipe, as_recipe
from rarkit.recipe.rehearsal import rehearsal
from rarkit.recipe.schema import Recipe
from rarkit.registry.exits import exits_are_errors
from rarkit.registry.inputs import names
from rarkit.registry.inputs import place as place_of
from rarkit.runtime.devices import check_known, resolve_device
from rarkit.runtime.progress import Reporter
from rarkit.runtime.random_state import random_state_kept
from rarkit.runtime.together import together
from rarkit.stages.evaluate import measured
from rarkit.stages.initial_weights import output_named, run_named
from rarkit.trackers.base import TrackedRun
from rarkit.trackers.consent import allowing
from rarkit.trackers.tracking import Trackers, open_trackers


def run(
    recipe: AnyRecipe,
    store: str | os.PathLike[str] = DEFAULT_STORE,
    *,
    device: str = "auto",
    start: str | None = None,
    until: str | None = None,
    force: tuple[str, ...] = (),
    name: str | None = None,
    runs: str | os.PathLike[str] = "runs",
    quiet: bool = False,
    wait: bool = True,
    allow_tracking: Iterable[str] = (),
) -> Run:
    """Runs the stages that are not in the store yet, and writes report, images and numbers to ``runs/<name>/``.

    The folder belongs to the recipe that used its name first; another recipe, or the same one with other overrides, gets
    ``runs/<name>-<six of a hash>/``. Running a recipe again replaces its own results.

    Args:
        recipe: a recipe, the path or URL of its file, or its tables as ``rarkit.make_recipe`` takes them.
        store: path or fsspec URL of the store that caches stage outputs.
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` uses CUDA if available.
        start: rerun this stage and all after it.
        until: stop after this stage.
        force: rerun these stages.
        name: the name of the run; None for that of the recipe.
        runs: the folder for results.
        quiet: show no progress on stderr.
        wait: wait for what another run is making in the same store, and use it; otherwise that is an error.
        allow_tracking: names of trackers in the recipe that may send settings, numbers and pictures to other machines.

    Raises:
        LockedError: another run is making what this one needs, and ``wait`` is false.
        RarkitError: the recipe cannot be run, or a stage failed; the message says what to do.
    """
    recipe = as_recipe(recipe)
    if name is not None:
        recipe = recipe.named(name, recipe.command, rehearsal=recipe.is_rehearsal)
    with together(), allowing(allow_tracking):
        planned = plan_to_run(recipe, store, start=start, until=until, force=force, quiet=quiet)
        return carry_out(planned, device=device, runs=runs, quiet=quiet, wait=wait)


def plan_to_run(
    recipe: AnyRecipe,
    store: str | os.PathLike[str] = DEFAULT_STORE,
    *,
    start: str | None = None,
    until: str | None = None,
    force: tuple[str, ...] = (),
    quiet: bool = False,
) -> Plan:
    """The plan of a run, in which nothing is unknown: weights on other machines are fetched, after saying so.

    Arguments and errors are those of ``plan`` and ``run``.
    """
    force = names("force", force)
    planned = plan(recipe, store, start=start, until=until, force=force)
    if planned.not_fetched is None:
        return planned
    with together() as ranks:
        reporter = Reporter(quiet=quiet or not ranks.first)
    for setting, place, remote in planned.addresses:
        if remote:
            reporter.say(f"{setting}: reading {place}")
    return plan(recipe, store, start=start, until=until, force=force, fetch=True)


@exits_are_errors()
@random_state_kept()
def carry_out(
    planned: Plan, *, device: str = "auto", runs: str | os.PathLike[str] = "runs", quiet: bool = False, wait: bool = True
) -> Run:
    """Executes a plan and publishes the results. Under ``torchrun``, every rank calls this with the same plan.

    Arguments and errors are those of ``run``.
    """
    began, runs = time.monotonic(), place_of("runs", runs)
    with together() as ranks:
        # Also where all is cached, and none is used.
        check_known(device)
        check_agreement(planned, ranks)
        reporter = Reporter(quiet=quiet or not ranks.first)
        folder = Path(ranks.told(lambda: str(folder_of(planned.recipe, Path(runs)))))
        _check_starts_elsewhere(planned, folder)
        if ranks.told(lambda: planned.nothing_to_do and shows(folder, planned)):
            check_ready(planned, "cpu")
            results = execute(planned, "cpu", reporter, _ignore, ranks)
            return Run(planned, folder, tuple(results), time.monotonic() - began)
        device = ranks.device(resolve_device(device))
        experiment = check_ready(planned, device, ranks.size)
        # The first rank's device is like those of the others.
        ranks.told(lambda: try_parts(planned, device))
        if not ranks.first:
            results = execute(planned, device, reporter, _ignore, ranks, wait=wait)
            folder = Path(ranks.told(lambda: str(folder)))
            return Run(planned, folder, tuple(results), time.monotonic() - began)
        weights = weights_used(planned.recipe)
        if _writes_outputs(planned):
            planned.store.check_writable()
        with _holding_folder(planned, Path(runs), reporter) as (folder, begun):
            live = _LiveLog(folder / "log.jsonl")
            try:
                trackers = partial(_trackers, planned.recipe, folder)
                show = partial(show_preview, folder)
                results = execute(planned, device, reporter, live.write, ranks, wait=wait, trackers=trackers, show=show)
            finally:
                live.close()
            # If a run of the same recipe failed meanwhile and gave the folder up, another recipe may have it now.
            folder = claimed(planned.recipe, Path(runs))
            run = Run(planned, folder, tuple(results), time.monotonic() - began)
            _publish(run, experiment, device, weights, begun)
        ranks.told(lambda: str(run.folder))
        return run


def _check_starts_elsewhere(planned: Plan, folder: Path) -> None:
    """Raises RecipeError if training would start from the results that it replaces: every run would train again, from the last."""
    train = planned.recipe.train
    if train is None or train.init_from is None or planned["train"].action != "run":
        return
    named = run_named(train.init_from)
    if named is None or os.path.realpath(named) != os.path.realpath(folder):
        return
    output = output_named(train.init_from)
    assert output is not None, "a run that trained has an output"
    raise RecipeError(
        f"train.init_from names {train.init_from}, the results that this run replaces, so each run would train again from the one "
        f'before. Name the output from which to start: train.init_from = "{output.path}".'
    )


@contextmanager
def _holding_folder(planned: Plan, runs: Path, reporter: Reporter) -> Iterator[tuple[Path, str | None]]:
    """Claims the folder for the results, and leaves a receipt of a run that writes outputs in the store; yields both."""
    recipe, begun = planned.recipe, None
    folder = claimed(recipe, runs)
    try:
        if folder.name != recipe.recipe_name:
            reporter.say(f"results go to {folder}: {runs / recipe.recipe_name} is of another recipe, or of other settings (--set)")
        if _writes_outputs(planned):
            begun = begin(planned, folder)
        yield folder, begun
    finally:
        ended(begun)
        release(folder, variant(recipe, runs))


def _writes_outputs(planned: Plan) -> bool:
    return any(stage.action == "run" for stage in planned.stages)


@random_state_kept()
def rehearse(recipe: AnyRecipe, *, device: str = "auto", runs: str | os.PathLike[str] = "runs", quiet: bool = False) -> Run:
    """Runs a small version of a recipe on generated images in a temporary store; writes a report to ``runs/<recipe>-rehearsal/``.

    Arguments and errors are those of ``run``. A rehearsal runs in a single process.
    """
    with together() as ranks:
        if ranks.size > 1:
            raise RecipeError("a rehearsal runs in one process. Start it without torchrun.")
    device = resolve_device(device)
    with tempfile.TemporaryDirectory(prefix="rarkit-rehearsal-") as scratch:
        small = small_version(as_recipe(recipe), device, scratch)
        rehearsed = run(small, f"{scratch}/store", device=device, runs=runs, quiet=quiet)
        rehearsed.read_all()
        return rehearsed


def small_version(recipe: Recipe, device: str, folder: str) -> Recipe:
    """What a rehearsal of a recipe runs. If the recipe trains no model, a random one is written into ``folder``."""
    small = rehearsal(recipe, device)
    return small if recipe.train is not None else _with_random_weights(small, f"{folder}/random.safetensors")


def _with_random_weights(recipe: Recipe, path: str) -> Recipe:
    from rarkit.files.weights import write_tensors

    model = recipe.model.create(resolve(recipe).config, recipe.attention.build(), recipe.seed)
    write_tensors(model.state_dict(), path, model.metadata())
    small = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": path})})
    # The path is another one each time, but the rehearsal is the same.
    return small.named(recipe.recipe_name, recipe.command, rehearsal=True)


def _trackers(recipe: Recipe, folder: Path, stage: str, step: int) -> AbstractContextManager[Trackers]:
    run = TrackedRun(recipe.recipe_name, folder, recipe.model_dump(mode="json"), step, stage)
    return open_trackers(recipe.trackers, run)


def _ignore(stage: str, record: Mapping[str, Any]) -> None:
    """For ranks and runs that write no log."""


@final
class _LiveLog:
    """Writes ``log.jsonl`` during a run; publishing replaces it by the complete log from the store.

    Where it cannot be written, a warning says so, and the run goes on: what it logs is in the store too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._failed = False

    def write(self, stage: str, record: Mapping[str, Any]) -> None:
        if self._failed:
            return
        try:
            if self._file is None:
                self._file = started(self._path)
            self._file.write(json.dumps({"stage": stage, **record}).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            self._failed = True
            warnings.warn(
                RarkitWarning(f"{self._path} cannot be written ({error}): it is left out until the run ends."), stacklevel=2
            )

    def close(self) -> None:
        if self._file is not None:
            # Closing writes what an error kept from being written.
            with suppress(OSError) if self._failed else writing_results(self._path.parent):
                self._file.close()


def _publish(run: Run, experiment: Experiment, device: str, weights: Mapping[str, Any], begun: str | None) -> None:
    from rarkit.report.publish import publish

    outputs, store = run.plan.outputs(), run.plan.store
    with writing_results(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        files = publish(experiment, outputs, run.folder)
        about = {"seconds": round(run.seconds, 3), "device": device, "weights": weights, "files": files}
        # The receipt is of all that the folder shows, also of stages that this run left out. Its own numbers are read now, because
        # the store of a rehearsal is gone afterwards.
        shown = run.metrics or (measured(outputs["evaluate"])[0] if "evaluate" in outputs else [])
        metrics = {metric.name: metric.value for metric in shown}
        receipt = make_receipt(experiment, run.folder, store, outputs, run.results, **about, metrics=metrics)
        keep(receipt, store, run.folder, begun=begun, wrote=not run.did_nothing)
