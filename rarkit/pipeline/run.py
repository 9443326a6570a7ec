"""``rarkit.run``: a recipe from plan to pictures."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rarkit.errors import CapabilityError, RecipeError, StoreError
from rarkit.recipe.rehearsal import rehearsal
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import Settings
from rarkit.inference.finished_run import RECEIPT
from rarkit.pipeline.plan import DEFAULT_STORE, Plan, plan
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import together
from rarkit.pipeline.execution import StageResult, check_ready, execute, versions
from rarkit.files.atomic import write_text
from rarkit.files.weights import checksum


@final
@dataclass(frozen=True)
class Run:
    """What a run came to."""

    plan: Plan
    folder: Path
    """Where the pictures and numbers are."""
    results: tuple[StageResult, ...]
    seconds: float

    @property
    def did_nothing(self) -> bool:
        """Whether everything was there already."""
        return all(result.action == "cached" for result in self.results)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The records of ``metrics.json``; none where the recipe was stopped before evaluation."""
        path = self.folder / "metrics.json"
        return list(json.loads(path.read_text())["metrics"]) if path.exists() else []


def resolve_device(device: str) -> str:
    """``"auto"`` is CUDA where there is any, else the CPU; anything else is itself. Raises CapabilityError if it cannot be used."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CapabilityError(f"device {device!r} cannot be used here ({reason}). Use cpu, cuda or auto.") from error
    return device


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
    """Runs what is not in the store yet, and leaves pictures and numbers in ``runs/<recipe>/``.

    Args:
        recipe: from ``rarkit.load_recipe``.
        store: where stage outputs are cached, any fsspec URL.
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` takes CUDA where there is any.
        start: run this stage and all after it anew.
        until: stop after this stage.
        force: run these stages anew.
        runs: the folder for results.
        quiet: no progress on stderr.

    Raises:
        RarkitError: whatever went wrong, with its cure.
    """
    with together():
        return carry_out(plan(recipe, store, start=start, until=until, force=force), device=device, runs=runs, quiet=quiet)


def carry_out(planned: Plan, *, device: str = "auto", runs: str | Path = "runs", quiet: bool = False) -> Run:
    """Carries out a plan; the second half of ``run``. Under ``torchrun``, every rank calls it with the same plan."""
    folder = Path(runs) / planned.recipe.recipe_name
    began = time.monotonic()
    with together() as ranks:
        # Also keeps the first from writing what would change the plans of the others.
        ranks.agree("the plan", [[stage.name, stage.action, stage.fingerprint] for stage in planned.stages])
        reporter = Reporter(quiet=quiet or not ranks.first)
        if ranks.told(lambda: planned.nothing_to_do and _is_published(planned, folder)):
            check_ready(planned, "cpu")
            results = execute(planned, "cpu", reporter, _ignore, ranks)
            return Run(planned, folder, tuple(results), time.monotonic() - began)
        device = ranks.device(resolve_device(device))
        check_ready(planned, device)
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
        _publish(run, device, weights)
        ranks.meet()
        return run


def weights_used(recipe: Recipe) -> dict[str, dict[str, str]]:
    """The weight files that a recipe names, by table, each with its place and ``sha256``.

    A part reads weights if it has a setting ``weights``.

    Raises:
        WeightsError: a file is not there.
    """
    tables: dict[str, Settings] = {"model": recipe.model, "tokenizer": recipe.tokenizer}
    if recipe.evaluate is not None:
        tables["evaluate.features"] = recipe.evaluate.features
    places = {table: getattr(settings, "weights", None) for table, settings in tables.items()}
    return {table: {"file": place, "sha256": checksum(place)} for table, place in places.items() if place is not None}


def rehearse(recipe: Recipe, *, device: str = "auto", runs: str | Path = "runs", quiet: bool = False) -> Run:
    """Runs every stage of a recipe on stand-ins, in a store that is thrown away; leaves a report in ``runs/<recipe>-rehearsal/``.

    Arguments and errors are those of ``run``; one process does it.
    """
    with together() as ranks:
        if ranks.size > 1:
            raise RecipeError("a rehearsal is for one process. Start it without torchrun.")
    small = rehearsal(recipe)
    with tempfile.TemporaryDirectory(prefix="rarkit-rehearsal-") as scratch:
        if recipe.train is None:
            small = _with_random_weights(small, f"{scratch}/random.safetensors")
        return run(small, f"{scratch}/store", device=device, runs=runs, quiet=quiet)


def _with_random_weights(recipe: Recipe, path: str) -> Recipe:
    from rarkit.models.rar.checkpoints import save_rar
    from rarkit.models.rar.rar import RAR
    from rarkit.stages.train import rar_config

    save_rar(RAR(rar_config(recipe), seed=recipe.seed), path)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": path})})


def _ignore(stage: str, record: Mapping[str, Any]) -> None:
    """Nothing runs here that has anything to log."""


@final
class _LiveLog:
    """``log.jsonl`` while it grows; publishing replaces it with the exact record from the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def write(self, stage: str, record: Mapping[str, Any]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w")
        self._file.write(json.dumps({"stage": stage, **record}) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _fingerprints(planned: Plan) -> dict[str, str]:
    return {name: output.fingerprint for name, output in planned.outputs().items()}


def _is_published(planned: Plan, folder: Path) -> bool:
    """Whether the folder shows just these outputs."""
    try:
        receipt = json.loads((folder / RECEIPT).read_text())
    except (FileNotFoundError, ValueError):
        return False
    shown = {stage["name"]: stage["fingerprint"] for stage in receipt["stages"]}
    return shown == _fingerprints(planned) and all((folder / name).exists() for name in receipt["files"])


def _publish(run: Run, device: str, weights: Mapping[str, Any]) -> None:
    from rarkit.report.publish import publish

    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        files = publish(run.plan, run.results, run.seconds, run.folder)
        write_text(run.folder / RECEIPT, json.dumps(_receipt(run, device, weights, files), indent=2) + "\n")
    except OSError as error:
        raise StoreError(
            f"results cannot be written to {run.folder}: {error}. The stages' outputs are safe in the store."
        ) from error


def _receipt(run: Run, device: str, weights: Mapping[str, Any], files: list[str]) -> dict[str, Any]:
    """What ran, on what, from which weights, with which numbers."""
    from rarkit.report.publish import machine_description

    ran = {result.name: result for result in run.results}
    stages = []
    for name, output in run.plan.outputs().items():
        record = output.record()
        stages.append(
            {
                "name": name,
                "fingerprint": output.fingerprint,
                "action": ran[name].action if name in ran else "cached",
                "seconds": round(ran[name].seconds, 3) if name in ran else 0.0,
                "path": output.path,
                "identity": record["identity"],
                "upstream": record["upstream"],
                "versions": record["versions"],
                "bytes": output.bytes_used(),
            }
        )
    return {
        "recipe": run.plan.recipe.model_dump(mode="json"),
        "recipe_name": run.plan.recipe.recipe_name,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(run.seconds, 3),
        "device": device,
        "machine": machine_description(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions(),
        "weights": weights,
        "store": run.plan.store.address,
        "stages": stages,
        "files": files,
        "metrics": {metric["name"]: metric["value"] for metric in run.metrics},
    }


def as_json(run: Run) -> dict[str, Any]:
    """A run for scripts: ``rarkit run --json``."""
    return {
        "recipe": run.plan.recipe.recipe_name,
        "folder": str(run.folder),
        "seconds": round(run.seconds, 3),
        "stages": [dataclasses.asdict(result) for result in run.results],
        "metrics": run.metrics,
    }
