"""Loads recipes: a TOML file with those it extends, and overrides; ``mistakes`` words the errors."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from rarkit.errors import RecipeError
from rarkit.recipe.edits import SET, UNSET, drop, override
from rarkit.recipe.folder_names import folder_name_of
from rarkit.recipe.origin import Origin
from rarkit.recipe.schema import Recipe
from rarkit.recipe.schema import parse_recipe as parse_recipe
from rarkit.recipe.toml_files import read_tables
from rarkit.registry.exits import exits_are_errors
from rarkit.registry.loader import parts as installed_parts
from rarkit.registry.shown import shown
from rarkit.runtime.random_state import random_state_kept


@exits_are_errors()
@random_state_kept()
def load_recipe(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), *, unset: Sequence[str] = (), strict_plugins: bool = False
) -> Recipe:
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
    path = os.fspath(path)
    for given in (overrides, unset):
        if isinstance(given, str | Mapping):
            raise RecipeError(
                f'found {shown(given)} where a list is needed, as in ["train.steps=100"]. Values in a dictionary are for '
                'load_recipe(path).replace({"train.steps": 100}).'
            )
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
    # "...toml" without its suffix is "..", and its results would lie in the folder above.
    return recipe.named(folder_name_of(PurePosixPath(path).stem), command, origin=Origin.of(path, tuple(changes)))
