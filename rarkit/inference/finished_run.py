"""Finished runs, read back from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rarkit.cache.output import StageOutput
from rarkit.cache.store import Store
from rarkit.errors import RecipeError, WeightsError
from rarkit.recipe.load import parse_recipe
from rarkit.recipe.schema import Recipe
from rarkit.registry.loader import registry

RECEIPT = "receipt.json"


@final
@dataclass(frozen=True)
class FinishedRun:
    """What ``runs/<recipe>/receipt.json`` leads to."""

    folder: Path
    recipe: Recipe
    outputs: Mapping[str, StageOutput]
    """The outputs of its stages, by name; whether they are still in the store is for the reader to see."""


def open_run(folder: str | Path) -> FinishedRun:
    """Reads a run's receipt.

    Raises:
        RecipeError: the folder holds none, or one that this version cannot read.
    """
    folder = Path(folder)
    try:
        receipt: dict[str, Any] = json.loads((folder / RECEIPT).read_text())
        store, stages = Store(receipt["store"]), receipt["stages"]
        outputs = {stage["name"]: store.output(stage["name"], stage["fingerprint"]) for stage in stages}
        recipe = parse_recipe(receipt["recipe"], registry(), f"{folder / RECEIPT} (recipe)")
    except FileNotFoundError:
        raise RecipeError(f"{folder} is no run: it has no {RECEIPT}. Runs lie in runs/<recipe>/ after rarkit run.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder / RECEIPT} cannot be read ({type(error).__name__}: {error}). Run the recipe again.") from error
    return FinishedRun(folder, recipe.named(receipt["recipe_name"]), outputs)


def export_model(folder: str | Path, path: str | Path | None = None, *, merged: bool = False) -> str:
    """Writes the model of a run as one file that ``load_rar`` and, if not merged, the original code read.

    Args:
        folder: the run's folder, ``runs/<recipe>``.
        path: where to; ``.safetensors`` or ``.bin``, any fsspec URL; ``model.safetensors`` in the run's folder unless given.
        merged: fold both positional tables into one for the run's scan order.

    Returns:
        The path.

    Raises:
        RecipeError: the folder is no run.
        WeightsError: the run trained no model, or the file cannot be written.
        IncompleteError: the model is no longer whole in the store.
    """
    import torch

    from rarkit.models.rar.checkpoints import save_rar
    from rarkit.stages.base import model_grid
    from rarkit.stages.train import trained_model

    run = open_run(folder)
    if "train" not in run.outputs:
        raise WeightsError(
            f"{folder} trained no model: its recipe samples from {run.recipe.model.weights}. Export that file's copy."
        )
    run.outputs["train"].require_complete()
    model = trained_model(run.outputs["train"], run.recipe, "cpu")
    target = path or Path(folder) / ("model-merged.safetensors" if merged else "model.safetensors")
    order = torch.from_numpy(run.recipe.scan_order.order(*model_grid(run.recipe)))
    save_rar(model.merge_positions(order) if merged else model, target)
    return str(target)
