"""A tokenizer to be measured or exported, and the images to measure it on: of a run, a recipe, a bundle or a tokenizer's file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any, final

from rarkit.cache.output import StageOutput
from rarkit.errors import RecipeError, UserError, WeightsError
from rarkit.files.weight_files import FORMATS, INDEX
from rarkit.inference.bundle import is_bundle
from rarkit.inference.source import Source, open_source
from rarkit.pipeline.plan import DEFAULT_STORE, plan
from rarkit.pipeline.results import Run
from rarkit.recipe.edits import SET, override
from rarkit.recipe.load import load_recipe, parse_recipe
from rarkit.recipe.schema import Recipe
from rarkit.recipe.values import as_tables
from rarkit.registry.inputs import place as place_of
from rarkit.registry.loader import parts
from rarkit.stages.base import read_state
from rarkit.tokenizers.base import LearnedState, Tokenizer
from rarkit.tokenizers.exported import Exported, is_exported

RECIPE = ".toml"
OF_THE_IMAGES = ("dataset", "evaluate", "seed")
"""The keys of a recipe that decide on what, and in which features, a tokenizer is measured."""


@final
@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer with what it learned, and the recipe that it is of; None of a file and a bundle, which name no images."""

    tokenizer: Tokenizer
    state: LearnedState
    recipe: Recipe | None
    outputs: Mapping[str, StageOutput]
    """Those of the recipe that are complete, by stage."""


def open_tokenizer(place: Run | str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> TokenizerSource:
    """Opens a tokenizer.

    Args:
        place: a run, or its folder; the path or URL of a recipe (``.toml``), a bundle, or a tokenizer's file.
        store: where a run's store is now, and where that of a recipe is.

    Raises:
        UserError: the place is none of them.
        WeightsError: the tokenizer was not trained yet, or a file is missing, damaged, or another one than the run used.
        IncompleteError, StoreError: what it learned is no longer in the store.
    """
    name = "" if isinstance(place, Run) else place_of("source", place)
    if name.lower().endswith(RECIPE):
        return _of_recipe(name, os.fspath(store or DEFAULT_STORE))
    if name and is_exported(name):
        if store is not None:
            raise UserError(f"{name} is a tokenizer's file, which needs no store: leave out --store {store}.")
        return TokenizerSource(Exported(weights=name), {}, None, {})
    return _of_source(open_run_or_bundle(place, store))


def open_run_or_bundle(place: Run | str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> Source:
    """Opens what has a tokenizer of its own.

    Args:
        place: a run, or its folder; the path or URL of a bundle.
        store: where a run's store is now.

    Raises:
        UserError: the place is a file of weights, and no bundle.
        WeightsError, StoreError: as ``open_source`` does.
    """
    name = "" if isinstance(place, Run) else place_of("source", place)
    if name and is_exported(name):
        raise UserError(f"{name} is a tokenizer's file already. Copy it.")
    if name.lower().endswith((*FORMATS, INDEX)) and not is_bundle(name):
        raise UserError(
            f"{name} is a file of weights, which does not say of which tokenizer. Give a recipe that names its part, or a run of "
            f"that: [tokenizer] name = …, weights = {name!r}"
        )
    return open_source(place, store=store)


def _of_recipe(place: str, store: str) -> TokenizerSource:
    recipe = load_recipe(place)
    if not recipe.tokenizer.learns:
        return TokenizerSource(recipe.tokenizer, {}, recipe, {})
    outputs = plan(recipe, store).outputs()
    if "fit" not in outputs:
        raise WeightsError(f"the tokenizer of {place} is not in the store {store}. Train it: rarkit run {place} --until fit")
    return TokenizerSource(recipe.tokenizer, read_state(outputs["fit"]), recipe, outputs)


def _of_source(source: Source) -> TokenizerSource:
    source.check_weights("tokenizer")
    recipe, outputs = source.experiment.recipe, {} if source.run is None else source.run.outputs
    outputs = {name: output for name, output in outputs.items() if output.is_complete}
    return TokenizerSource(recipe.tokenizer, source.tokenizer_state(), None if source.bundle else recipe, outputs)


def recipe_of_images(source: TokenizerSource, data: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe whose ``[dataset]`` and ``[evaluate]`` say on which images, and in which features, a tokenizer is measured.

    Args:
        source: the tokenizer.
        data: the path or URL of a recipe, or the name of a dataset, which then has its default settings; None for the images that
            the tokenizer's own recipe names.
        overrides: assignments such as ``"dataset.size=64"``, which come last.

    Raises:
        UserError: there are no images, since the tokenizer is of a file or a bundle, or the data are images themselves.
        RecipeError: the result is not valid.
    """
    # Of the recipe that is made here, nothing but the images is used.
    tables: dict[str, Any] = {
        "title": "",
        "tokenizer": {"name": "pixel"},
        "model": {"preset": "rar_b", "weights": "-"},
        "sample": {},
    }
    is_recipe = data is not None and data.lower().endswith(RECIPE)
    if data is not None and not is_recipe and data not in parts().datasets and os.path.exists(data):
        what = "a folder" if os.path.isdir(data) else "no recipe"
        raise UserError(f"{data} is {what}. To measure its images, give a recipe of them, as this writes: rarkit new {quote(data)}")
    if data is not None and is_recipe:
        tables |= _images_of(load_recipe(data))
    elif source.recipe is not None:
        tables |= _images_of(source.recipe)
    if data is not None and not is_recipe:
        tables["dataset"] = {"name": data}
    for assignment in overrides:
        if assignment.partition("=")[0].partition(".")[0].strip() not in OF_THE_IMAGES:
            raise RecipeError(
                f"{SET} {assignment}: the tokenizer is as it was trained. What can be set begins with {', '.join(OF_THE_IMAGES)}: "
                "dataset.size=64, for instance."
            )
        override(tables, assignment)
    if "dataset" not in tables:
        raise UserError("this file names no images: give --data, a recipe or the name of a dataset.")
    return parse_recipe(tables, parts(), data or "the recipe", {f"{SET} {assignment}": "" for assignment in overrides})


def _images_of(recipe: Recipe) -> dict[str, Any]:
    """The tables that are of the images."""
    tables = as_tables(recipe)
    return {key: tables[key] for key in OF_THE_IMAGES if tables.get(key) is not None}
