"""Recipes from Python: ``make_recipe``, and whatever stands for a recipe where one is wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rarkit.attention.base import AttentionBackend
from rarkit.datasets.base import Dataset
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.models.base import ModelFamily
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.recipe.load import load_recipe
from rarkit.recipe.schema import Recipe, parse_recipe
from rarkit.recipe.values import as_tables
from rarkit.registry.exits import exits_are_errors
from rarkit.registry.loader import parts
from rarkit.registry.shown import shown
from rarkit.runtime.random_state import random_state_kept
from rarkit.sampling.settings import SampleSettings
from rarkit.scan_orders.base import ScanOrder
from rarkit.tokenizers.base import Tokenizer
from rarkit.trackers.base import Tracker

Table = Mapping[str, Any]
AnyRecipe = Recipe | str | os.PathLike[str] | Table
"""A recipe; the path or URL of its TOML file; or its tables, each as in ``make_recipe``."""


@exits_are_errors()
@random_state_kept()
def make_recipe(
    *,
    dataset: str | Table | Dataset | type[Dataset],
    tokenizer: str | Table | Tokenizer | type[Tokenizer],
    model: Table | ModelFamily,
    scan_order: str | Table | ScanOrder | type[ScanOrder] | None = None,
    permutation_schedule: str | Table | PermutationSchedule | type[PermutationSchedule] | None = None,
    attention: str | Table | AttentionBackend | type[AttentionBackend] | None = None,
    train: Table | TrainSettings | None = None,
    sample: Table | SampleSettings | None = None,
    evaluate: Table | EvaluateSettings | None = None,
    trackers: Sequence[str | Table | Tracker | type[Tracker]] = (),
    seed: int = 0,
    title: str | None = None,
    name: str = "",
) -> Recipe:
    """Makes a recipe of names, tables and parts; what is left out or None has the default of a recipe file.

    Each table of a recipe is given as the dictionary that TOML would make of it, or as the part or settings themselves; a part of
    which no setting is to be changed by its name or class alone. ``{}`` is a table with nothing but defaults.

    Args:
        dataset, tokenizer, model, scan_order, permutation_schedule, attention: the parts.
        train: training; None for a model with ``weights``.
        sample: sampling; None for none.
        evaluate: evaluation of the samples; None for none.
        trackers: where numbers and pictures of the training are shown while it runs.
        seed: of everything random.
        title: one line for plans and reports; None for the names of the parts.
        name: of the recipe, whose results are in ``runs/<name>/``; the names of dataset and model if it is empty.

    Raises:
        RecipeError: this is not a valid recipe; the message names up to a dozen mistakes.
        PluginError: two plugins register the same part.
    """
    tables = {
        "dataset": dataset,
        "tokenizer": tokenizer,
        "model": model,
        "scan_order": scan_order,
        "permutation_schedule": permutation_schedule,
        "attention": attention,
        "train": train,
        "sample": sample,
        "evaluate": evaluate,
        "trackers": trackers,
        "title": title,
        "seed": seed,
    }
    recipe = _of_tables({key: value for key, value in tables.items() if value is not None})
    return recipe if name == "" else recipe.named(name)


def as_recipe(recipe: AnyRecipe) -> Recipe:
    """The recipe that something stands for.

    Raises:
        RecipeError: it is no recipe, or not a valid one.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return _of_tables(recipe)
    if isinstance(recipe, str | os.PathLike):
        return load_recipe(recipe)
    raise RecipeError(f"found {shown(recipe)} where a recipe is needed. Give a recipe, the path of its file, or its tables.")


def _of_tables(values: Table) -> Recipe:
    tables = as_tables(values)
    if "title" not in tables:
        chosen = [tables[kind]["name"] for kind in ("dataset", "tokenizer", "scan_order") if "name" in _table(tables.get(kind))]
        tables["title"] = ", ".join(map(str, chosen))
    return parse_recipe(tables, parts())


def _table(value: Any) -> Table:
    return value if isinstance(value, Mapping) else {}
