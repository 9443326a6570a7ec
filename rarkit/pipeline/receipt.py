"""The receipt of a run, ``runs/<recipe>/receipt.json``: recipe, stages, machine, versions, weights, metrics."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rarkit.cache.output import StageOutput
from rarkit.cache.receipt_content import FORMAT, LARGEST, Receipt
from rarkit.cache.receipts import has_receipt
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError, RecipeError, StoreError, WeightsError
from rarkit.files.regular import read_regular
from rarkit.files.stored_json import read_json
from rarkit.files.weights import checksum
from rarkit.images import ImageInfo
from rarkit.pipeline.execution import StageResult, versions
from rarkit.pipeline.kept_receipts import about_run, receipt_name
from rarkit.pipeline.plan import Plan
from rarkit.pipeline.run_folder import RECEIPT
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.load import parse_recipe
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import ABSOLUTE, Settings
from rarkit.registry.loader import parts
from rarkit.runtime.machine import machine_description


def make_receipt(
    experiment: Experiment,
    folder: Path,
    store: Store,
    outputs: Mapping[str, StageOutput],
    results: Sequence[StageResult],
    **about: Any,
) -> dict[str, Any]:
    """The receipt as plain JSON data.

    Args:
        experiment: the experiment that was run.
        folder: the folder of the run.
        store: the store that holds the outputs.
        outputs: the complete outputs, by stage.
        results: what the run did for each stage.
        about: further entries (device, seconds, weights, files, metrics).
    """
    recipe, ran = experiment.recipe, {result.name: result for result in results}
    stages = []
    for name, output in outputs.items():
        record = output.begun()
        facts = {name: fact for name, fact in (("precision", record.precision), ("device", record.device)) if fact is not None}
        stages.append(
            {
                "name": name,
                "fingerprint": output.fingerprint,
                "action": ran[name].action if name in ran else "cached",
                "seconds": record.seconds,
                "machine": record.machine,
                **facts,
                "path": output.path,
                "identity": record.identity,
                "upstream": record.upstream,
                "versions": record.versions,
                "bytes": output.bytes_used(),
            }
        )
    return {
        **about_run(recipe, folder),
        # Whoever reads it back may be in another working directory.
        "recipe": recipe.model_dump(mode="json", context={ABSOLUTE: True}),
        "images": dataclasses.asdict(experiment.images),
        "splits": list(experiment.splits),
        "machine": machine_description(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions(),
        "store": store.address,
        "stages": stages,
        **about,
    }


@final
@dataclass(frozen=True)
class FinishedRun:
    """A run read back from its receipt."""

    folder: Path
    store: Store
    experiment: Experiment
    outputs: Mapping[str, StageOutput]
    """The outputs of its stages, by name; they may have been deleted from the store since."""
    weights: Mapping[str, str]
    """The SHA-256 of the weight files that it used, by table; empty if an older rarkit wrote the receipt."""

    @property
    def recipe(self) -> Recipe:
        return self.experiment.recipe

    def output(self, stage: str) -> StageOutput:
        """The complete output of a stage.

        Raises:
            WeightsError: the run did not get that far.
            IncompleteError: the output is no longer in the store, or damaged.
        """
        if stage not in self.outputs:
            raise WeightsError(
                f"the run {self.folder} has no output of stage {stage!r}: it did not get that far. Run its recipe to the end."
            )
        output = self.outputs[stage]
        if not output.exists():
            raise IncompleteError(
                f"the output of stage {stage!r} of {self.folder} is not in the store {self.store.url}. If the store was moved, "
                "name it with --store; if the output was deleted, run the recipe again."
            )
        output.require_complete()
        return output


def read_receipt(folder: Path) -> Receipt:
    """A run's receipt, in the current format or an older one.

    Raises:
        RecipeError: the folder has no receipt, or it is damaged or was written by a newer rarkit.
    """
    path = folder / RECEIPT
    try:
        data = read_regular(path, LARGEST, raising=RecipeError)
    except FileNotFoundError:
        raise RecipeError(f"{folder} is not a run: it has no {RECEIPT}. rarkit run leaves one in runs/<recipe>/.") from None
    except NotADirectoryError:
        raise RecipeError(_no_folder(folder)) from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror or error}). Check that you may read it.") from error
    return read_json(Receipt, data, str(path), "Run the recipe again.", most=LARGEST, newest=FORMAT, raising=RecipeError)


def _no_folder(file: Path) -> str:
    if file.suffix == ".toml":
        return f"{file} is a recipe, not a run. Run it with rarkit run {file}, and name the folder it leaves: runs/{file.stem}."
    return f"{file} is a file, not the folder of a run. rarkit run leaves one in runs/<recipe>/."


def open_run(folder: str | Path, store: str | None = None) -> FinishedRun:
    """Reads a run back from its folder. Neither the data nor the working directory of the run are needed.

    Args:
        folder: the folder of the run.
        store: path or fsspec URL of its store; None for the one in the receipt. If that is gone because project and store were
            moved together, it is looked for at the same place relative to the run.

    Raises:
        RecipeError: the folder has no receipt, or one that this version cannot read.
        DatasetError: an older rarkit wrote the receipt, and the data that defines its classes is missing.
        StoreError: there is no store where ``store`` says.
    """
    folder = Path(folder)
    receipt = read_receipt(folder)
    stages = {stage.name: stage.fingerprint for stage in receipt.stages}
    if receipt.recipe is None or receipt.store is None:
        raise RecipeError(f"{folder / RECEIPT} names no recipe and store of a finished run. Run the recipe again.")
    places = [store] if store is not None else _moved(receipt.store, receipt, folder)
    tables = _tables(receipt.recipe, receipt, folder)
    recipe = parse_recipe(tables, parts(), f"{folder / RECEIPT} (recipe)").named(receipt.recipe_name)
    images = None if receipt.images is None else ImageInfo(**receipt.images.model_dump())
    weights = {table: used.sha256 for table, used in receipt.weights.items()}
    opened = [Store(place) for place in places]
    if store is not None and not opened[0].exists():
        raise StoreError(f"there is no store {store!r}. Name the store of {folder} with --store.")
    holding = [place for place in opened if any(place.output(*stage).exists() for stage in stages.items())] if opened[1:] else []
    chosen = [*holding, *opened][0]
    outputs = {name: chosen.output(name, fingerprint) for name, fingerprint in stages.items()}
    return FinishedRun(folder, chosen, resolve(recipe, images, receipt.splits), outputs, weights)


def _moved(place: str, receipt: Receipt, folder: Path) -> list[str]:
    """A place in a receipt and, if the run's folder was moved and its counterpart relative to the folder exists, that."""
    path = place.removeprefix("file://")
    recorded, actual = receipt.folder, os.path.abspath(folder)
    if recorded in (None, actual) or not os.path.isabs(path):
        return [place]
    counterpart = os.path.normpath(os.path.join(actual, os.path.relpath(path, recorded)))
    return [place, counterpart] if os.path.exists(counterpart) else [place]


def _tables(value: Any, receipt: Receipt, folder: Path) -> Any:
    """A receipt's recipe, in which the paths of files that were moved with the run are those of now."""
    if isinstance(value, dict):
        return {key: _tables(item, receipt, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_tables(item, receipt, folder) for item in value]
    if isinstance(value, str) and os.path.isabs(value) and not os.path.exists(value):
        return _moved(value, receipt, folder)[-1]
    return value


def shows(folder: Path, plan: Plan) -> bool:
    """Whether a run's folder is complete, its receipt lists exactly the outputs of the plan, and the store has a receipt too."""
    try:
        receipt = read_receipt(folder)
    except RecipeError:
        # The folder is written again.
        return False
    shown = {stage.name: stage.fingerprint for stage in receipt.stages}
    current = {name: output.fingerprint for name, output in plan.outputs().items()}
    # Unlike Path.exists, os.path.exists takes any name.
    complete = receipt.format == FORMAT and shown == current and all(os.path.exists(folder / name) for name in receipt.files)
    name = receipt_name(folder)
    return complete and name is not None and has_receipt(plan.store, name)


def weights_used(recipe: Recipe) -> dict[str, dict[str, str]]:
    """The weight files of a recipe, by table, each with its location (``file``) and ``sha256``.

    A part reads weights if it has a setting ``weights``.

    Raises:
        WeightsError: a file is missing.
    """
    tables: dict[str, Settings] = {"model": recipe.model, "tokenizer": recipe.tokenizer}
    if recipe.evaluate is not None:
        tables["evaluate.features"] = recipe.evaluate.features
    places = {table: getattr(settings, "weights", None) for table, settings in tables.items()}
    return {table: {"file": place, "sha256": checksum(place)} for table, place in places.items() if place is not None}
