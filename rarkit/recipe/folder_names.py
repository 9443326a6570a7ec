"""Names of recipes: results are in ``runs/<name>/``, and no name leads out of that folder."""

from __future__ import annotations

import os
from pathlib import PurePath

from rarkit.errors import RecipeError
from rarkit.registry.shown import shown

LONGEST_NAME = 200
"""In bytes: file systems take 255 or so, and numbers are put after it."""
UNNAMED = "recipe"
"""What a recipe is called whose own name is none that a folder can have."""


def folder_name(name: str) -> str:
    """A name that results can be under, in ``runs/<name>/``, as it is.

    Raises:
        RecipeError: no folder can have it.
    """
    if not _is_folder_name(name):
        raise RecipeError(
            f"name {shown(name)} cannot name a folder of results. Choose letters and digits, without slashes, "
            f"{LONGEST_NAME} bytes at most."
        )
    return name


def folder_name_of(found: str) -> str:
    """The name of a file, or one that a file says, if a folder can have it, and else ``UNNAMED``: a file is read all the same."""
    return found if _is_folder_name(found) else UNNAMED


def _is_folder_name(name: object) -> bool:
    is_text = isinstance(name, str) and name.isprintable() and len(os.fsencode(name)) <= LONGEST_NAME
    # Dots alone are this folder and the one above, or look like them.
    return is_text and bool(str(name).strip(".")) and name == PurePath(str(name)).name
