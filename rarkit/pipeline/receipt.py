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
from rarkit.cache.receipt_content import FORMAT, Receipt
from rarkit.cache.receipts import has_receipt
from rarkit.cache.record import FORMAT as RECORD_FORMAT
from rarkit.cache.run_folders import RECEIPT, complete, places_now, read_receipt, store_of
from rarkit.cache.store import Store
from rarkit.errors import RecipeError, StoreError, WeightsError
from rarkit.files.weights import checksum
from rarkit.images import ImageInfo
from rarkit.pipeline.execution import StageResult, versions
from rarkit.pipeline.kept_receipts import about_run, receipt_name
from rarkit.pipeline.plan import Plan
from rarkit.pipeline.used_weights import contents
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.folder_names import folder_name_of
from rarkit.recipe.load import parse_recipe
from rarkit.recipe.schema import Recipe
from rarkit.recipe.sources import check_names_known, check_same, sources, without_observers
from rarkit.registry.component import ABSOLUTE, Settings, own_settings
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
        **({"sources": {table: source._asdict() for table, source in used.items()}} if (used := sources(recipe)) else {}),
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


NOT_OWN = {"version", "source", "content"}
"""Entries of a part's identity that are no settings of it."""


@final
@dataclass(frozen=True)
class FinishedRun:
    """A run read back from its receipt."""

    folder: Path
    store: Store
    experiment: Experiment
    outputs: Mapping[str, StageOutput]
    """The outputs of its stages, by name; they may have been deleted from the store since."""
    used: Mapping[str, Any]
    """What its weights were, by table, as ``check_weights`` takes it; empty if an older rarkit wrote the receipt."""

    @property
    def recipe(self) -> Recipe:
        return self.experiment.recipe

    def output(self, stage: str) -> StageOutput:
        """The complete output of a stage.

        Raises:
            WeightsError: the run did not get that far.
            IncompleteError: the output is no longer in the store, or damaged.
            StoreError: the receipt says other parts than the output was made with.
        """
        if stage not in self.outputs:
            raise WeightsError(
                f"the run {self.folder} has no output of stage {stage!r}: it did not get that far. Run its recipe to the end."
            )
        output = complete(self.outputs[stage], self.folder, self.store)
        self._check_made_with(output)
        return output

    def _check_made_with(self, output: StageOutput) -> None:
        """The record of an output is sealed, and a receipt is not: it may have been edited, or have lost a bit."""
        recipe, record = self.recipe, output.record()
        assert record is not None, "complete has read it"
        if record.format < RECORD_FORMAT:
            # An older rarkit left out other defaults, and sealed less.
            return
        parts = {"scan_order": recipe.scan_order, "tokenizer": recipe.tokenizer, "model": recipe.model}
        for table, part in {**parts, "config": self.experiment.config}.items():
            made_with = record.identity.get(table)
            if isinstance(made_with, dict) and own_settings(part) != {key: made_with[key] for key in made_with.keys() - NOT_OWN}:
                raise StoreError(
                    f"{self.folder / RECEIPT} says another {table} than the output of stage {output.stage!r} was made with: it was "
                    "edited or is damaged. Run its recipe again, which writes it anew."
                )


def open_run(folder: str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> FinishedRun:
    """Reads a run back from its folder. Neither the data nor the working directory of the run are needed.

    Args:
        folder: the folder of the run.
        store: path or fsspec URL of its store; None for the one in the receipt. If that is gone because project and store were
            moved together, it is looked for at the same place relative to the run.

    Raises:
        RecipeError: the folder has no receipt, or one that this version cannot read.
        DatasetError: an older rarkit wrote the receipt, and the data that defines its classes is missing.
        PluginError: a part that the run had from Python is not registered here, or has another source.
        StoreError: there is no store where ``store`` says.
    """
    folder = Path(folder)
    receipt = read_receipt(folder)
    if receipt.recipe is None or receipt.store is None:
        raise RecipeError(f"{folder / RECEIPT} names no recipe and store of a finished run. Run the recipe again.")
    tables = _tables(without_observers(receipt.recipe), receipt, folder)
    check_names_known(receipt.sources, f"the run {folder}")
    recipe = parse_recipe(tables, parts(), f"{folder / RECEIPT} (recipe)").named(folder_name_of(receipt.recipe_name))
    check_same(recipe, receipt.sources, f"the run {folder}")
    images = None if receipt.images is None else ImageInfo(**receipt.images.model_dump())
    # The files' SHA-256 also where no stage has read them yet.
    used = {table: weights.sha256 for table, weights in receipt.weights.items()}
    used |= contents(stage.identity for stage in receipt.stages)
    chosen = store_of(receipt, folder, store)
    outputs = {stage.name: chosen.output(stage.name, stage.fingerprint) for stage in receipt.stages}
    return FinishedRun(folder, chosen, resolve(recipe, images, receipt.splits), outputs, used)


def _tables(value: Any, receipt: Receipt, folder: Path) -> Any:
    """A receipt's recipe, in which the paths of files that were moved with the run are those of now."""
    if isinstance(value, dict):
        return {key: _tables(item, receipt, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_tables(item, receipt, folder) for item in value]
    if isinstance(value, str) and os.path.isabs(value) and not os.path.exists(value):
        return places_now(value, receipt, folder)[-1]
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
