"""The folder of a run, as far as its receipt leads to the outputs in the store."""

from __future__ import annotations

import os
from pathlib import Path

from rarkit.cache.output import StageOutput
from rarkit.cache.receipt_content import FORMAT, LARGEST, Receipt
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError, RecipeError, StoreError, WeightsError
from rarkit.files.regular import read_regular
from rarkit.files.stored_json import read_json

RECEIPT = "receipt.json"
MODEL_FILE = "model.safetensors"
"""The trained model, in the output of stage ``train``."""


def read_receipt(folder: Path) -> Receipt:
    """A run's receipt, in the current format or an older one.

    Raises:
        RecipeError: the folder has no receipt, or it is damaged or was written by a newer rarkit.
    """
    path = folder / RECEIPT
    try:
        data = read_regular(path, LARGEST, raising=RecipeError)
    except FileNotFoundError:
        lacking = f"it has no {RECEIPT}" if folder.is_dir() else "there is no such folder"
        raise RecipeError(f"{folder} is not a run: {lacking}. rarkit run leaves one in runs/<recipe>/.") from None
    except NotADirectoryError:
        raise RecipeError(_no_folder(folder)) from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror or error}). Check that you may read it.") from error
    return read_json(Receipt, data, str(path), "Run the recipe again.", most=LARGEST, newest=FORMAT, raising=RecipeError)


def _no_folder(file: Path) -> str:
    if file.suffix == ".toml":
        return f"{file} is a recipe, not a run. Run it with rarkit run {file}, and name the folder it leaves: runs/{file.stem}."
    return f"{file} is a file, not the folder of a run. rarkit run leaves one in runs/<recipe>/."


def store_of(receipt: Receipt, folder: Path, store: str | os.PathLike[str] | None = None) -> Store:
    """The store that has the outputs of a finished run.

    Args:
        receipt: of the run.
        folder: of the run.
        store: where the store is now; None for where it was. If it is gone from there because project and store were moved
            together, it is looked for at the same place relative to the run.

    Raises:
        RecipeError: the receipt names no store.
        StoreError: there is no store where ``store`` says.
    """
    if receipt.store is None:
        raise RecipeError(f"{folder / RECEIPT} names no store of a finished run. Run the recipe again.")
    if store is not None:
        given = Store(store)
        if not given.exists():
            raise StoreError(f"there is no store {os.fspath(store)!r}. Name the store of {folder} with --store.")
        return given
    opened = [Store(place) for place in places_now(receipt.store, receipt, folder)]
    stages = [(stage.name, stage.fingerprint) for stage in receipt.stages]
    holding = [place for place in opened if any(place.output(*stage).exists() for stage in stages)] if opened[1:] else []
    return [*holding, *opened][0]


def places_now(place: str, receipt: Receipt, folder: Path) -> list[str]:
    """A place in a receipt and, if the run's folder was moved and its counterpart relative to the folder exists, that."""
    path = place.removeprefix("file://")
    recorded, actual = receipt.folder, os.path.abspath(folder)
    if recorded in (None, actual) or not os.path.isabs(path):
        return [place]
    counterpart = os.path.normpath(os.path.join(actual, os.path.relpath(path, recorded)))
    return [place, counterpart] if os.path.exists(counterpart) else [place]


def complete(output: StageOutput, folder: Path, store: Store) -> StageOutput:
    """An output of a run, which is whole. Raises IncompleteError if it is no longer in the store, or damaged."""
    if not output.exists():
        raise IncompleteError(
            f"the output of stage {output.stage!r} of {folder} is not in the store {store.url}. If the store was moved, "
            "name it with --store; if the output was deleted, run the recipe again."
        )
    output.require_complete()
    return output


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the local folder of a run."""
    return os.path.exists(os.path.join(folder, RECEIPT))


def model_of_run(folder: str | os.PathLike[str]) -> str:
    """The address of the model that a run trained: a file in its store, which is what was written.

    Raises:
        RecipeError: the folder is not a run.
        WeightsError: the run trained no model.
        StoreError: the model is no longer in the store, or damaged.
    """
    place = Path(folder)
    receipt = read_receipt(place)
    trained = next((stage.fingerprint for stage in receipt.stages if stage.name == "train"), None)
    if trained is None:
        raise WeightsError(f"the run {folder} trained no model. Name the file of weights that its recipe samples from.")
    store = store_of(receipt, place)
    return complete(store.output("train", trained), place, store).checked_file(MODEL_FILE)
