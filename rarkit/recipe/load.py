"""Loads recipes: a TOML file with those it extends, and overrides; ``mistakes`` words the errors."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from rarkit.recipe.edits import SET, UNSET, drop, override
from rarkit.recipe.mistakes import problems_of, refuse, unknown_parts
from rarkit.recipe.origin import Origin
from rarkit.recipe.schema import Recipe, recipe_model, with_default_names
from rarkit.recipe.toml_files import read_tables
from rarkit.registry.exits import exits_are_errors
from rarkit.registry.kinds import Parts
from rarkit.registry.loader import parts as installed_parts
from rarkit.runtime.random_state import random_state_kept


@exits_are_errors()
@random_state_kept()
def load_recipe(path: str, overrides: Sequence[str] = (), *, unset: Sequence[str] = (), strict_plugins: bool = False) -> Recipe:
    """Reads, merges and validates a recipe.

    Args:
        path: path or fsspec URL of a TOML file.
        overrides: assignments such as ``"train.steps=100"``: a dotted path and a TOML value (a bare word is a string).
        unset: keys and tables of the file to drop before the overrides, such as ``"train"`` or ``"sample.top_k"``.
        strict_plugins: fail if any installed plugin is broken, even one that the recipe does not use.

    Raises:
        RecipeError: the file is missing, not TOML, or invalid; the message says where, and names up to a dozen mistakes.
        PluginError: two plugins register the same name, or (with ``strict_plugins``) a plugin is broken.
    """
    path = str(path)
    tables, texts = read_tables(path)
    for key in unset:
        drop(tables, key, f"{UNSET} {key}", path)
    for assignment in overrides:
        override(tables, assignment)
        table, _, key = assignment.partition("=")[0].strip().rpartition(".")
        texts = {f"{SET} {assignment}": f"[{table}]\n{key} ="} | texts
    recipe = parse_recipe(tables, installed_parts(strict=strict_plugins), path, texts)
    changes = [*(f"{UNSET}={key}" for key in unset), *(f"{SET}={assignment}" for assignment in overrides)]
    command = shlex.join(["rarkit", "run", path, *changes])
    return recipe.named(PurePosixPath(path).stem, command, origin=Origin.of(path, tuple(changes)))


def parse_recipe(tables: Mapping[str, Any], parts: Parts, path: str = "recipe", texts: Mapping[str, str] | None = None) -> Recipe:
    """Validates a recipe given as nested dictionaries; ``path`` and ``texts`` (file contents by path) are used in messages only.

    Raises:
        RecipeError: the tables are not a valid recipe; the message names up to a dozen mistakes.
    """
    tables = with_default_names(dict(tables))
    model = _model(parts)
    problems = unknown_parts(tables, parts)
    try:
        recipe = model.model_validate(tables)
    except ValidationError as error:
        problems = {**problems_of(error, model, parts, list(problems)), **problems}
    if problems:
        refuse(problems, tables, path, texts or {})
    return recipe


@cache
def _model(parts: Parts) -> type[Recipe]:
    return recipe_model(parts)
