"""The receipt of a run, ``runs/<recipe>/receipt.json``: recipe, stages, machine, versions, weights, metrics."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rarkit.cache.output import StageOutput
from rarkit.cache.record import seconds_taken
from rarkit.cache.store import Store
from rarkit.errors import RecipeError
from rarkit.files.weights import checksum
from rarkit.images import ImageInfo
from rarkit.pipeline.execution import StageResult, versions
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.load import parse_recipe
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import Settings
from rarkit.registry.loader import parts
from rarkit.runtime.machine import machine_description

RECEIPT = "receipt.json"
FORMAT = 2
"""Format of the receipts that this version writes. Format 1 had no number, and did not record size and classes of the images."""


def write_receipt(
    experiment: Experiment,
    store: Store,
    outputs: Mapping[str, StageOutput],
    results: Sequence[StageResult],
    **about: Any,
) -> dict[str, Any]:
    """The receipt as plain JSON data.

    Args:
        experiment: the experiment that was run.
        store: the store that holds the outputs.
        outputs: the complete outputs, by stage.
        results: what the run did for each stage.
        about: further entries (device, seconds, weights, files, metrics).
    """
    recipe, ran = experiment.recipe, {result.name: result for result in results}
    stages = []
    for name, output in outputs.items():
        record = output.record()
        stages.append(
            {
                "name": name,
                "fingerprint": output.fingerprint,
                "action": ran[name].action if name in ran else "cached",
                "seconds": seconds_taken(record),
                "machine": record.get("machine"),
                "path": output.path,
                "identity": record["identity"],
                "upstream": record["upstream"],
                "versions": record["versions"],
                "bytes": output.bytes_used(),
            }
        )
    return {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_name": recipe.recipe_name,
        "images": dataclasses.asdict(experiment.images),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
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
    experiment: Experiment
    outputs: Mapping[str, StageOutput]
    """The outputs of its stages, by name; they may have been deleted from the store since."""

    @property
    def recipe(self) -> Recipe:
        return self.experiment.recipe


def read_receipt(folder: Path) -> dict[str, Any]:
    """A run's receipt, in the current format or an older one.

    Raises:
        RecipeError: the folder has no receipt, or it is damaged or was written by a newer rarkit.
    """
    path = folder / RECEIPT
    try:
        receipt: dict[str, Any] = dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise RecipeError(f"{folder} is not a run: it has no {RECEIPT}. rarkit run leaves one in runs/<recipe>/.") from None
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{path} cannot be read ({type(error).__name__}: {error}). Run the recipe again.") from error
    if receipt.get("format", 1) > FORMAT:
        raise RecipeError(
            f"{path} was written by a newer rarkit (format {receipt['format']}; this one reads up to {FORMAT}). Update rarkit."
        )
    return receipt


def open_run(folder: str | Path) -> FinishedRun:
    """Reads a run back from its folder.

    Raises:
        RecipeError: the folder has no receipt, or one that this version cannot read.
        DatasetError: an older rarkit wrote the receipt, and the data that defines its classes is missing.
    """
    folder = Path(folder)
    receipt = read_receipt(folder)
    try:
        store = Store(receipt["store"])
        outputs = {stage["name"]: store.output(stage["name"], stage["fingerprint"]) for stage in receipt["stages"]}
        recipe = parse_recipe(receipt["recipe"], parts(), f"{folder / RECEIPT} (recipe)").named(receipt["recipe_name"])
        images = None
        if "images" in receipt:
            images = ImageInfo(**{**receipt["images"], "class_names": tuple(receipt["images"]["class_names"])})
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder / RECEIPT} cannot be read ({type(error).__name__}: {error}). Run the recipe again.") from error
    return FinishedRun(folder, resolve(recipe, images), outputs)


def shows(folder: Path, outputs: Mapping[str, StageOutput]) -> bool:
    """Whether a run's folder is complete and its receipt lists exactly these outputs."""
    try:
        receipt = read_receipt(folder)
    except RecipeError:
        # The folder is written again.
        return False
    shown = {stage["name"]: stage["fingerprint"] for stage in receipt["stages"]}
    current = {name: output.fingerprint for name, output in outputs.items()}
    return receipt.get("format") == FORMAT and shown == current and all((folder / name).exists() for name in receipt["files"])


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
