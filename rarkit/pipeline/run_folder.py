"""The folder of a run, ``runs/<recipe>/``. The first recipe of a name keeps it; others get ``runs/<recipe>-<six of a hash>/``.

While a run goes on, its folder holds a claim, so that two runs at the same time never choose the same folder; afterwards the
receipt says whose it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from pydantic import BaseModel, ConfigDict, JsonValue

from rarkit.cache.receipt_content import LARGEST, Variant
from rarkit.cache.run_folders import RECEIPT
from rarkit.errors import RarkitError, StoreError, WriteError
from rarkit.files.atomic import write_once
from rarkit.files.regular import read_regular
from rarkit.files.stored_json import Model, parsed
from rarkit.files.system_errors import may_pass
from rarkit.recipe.folder_names import folder_name_of
from rarkit.recipe.load import parse_recipe
from rarkit.recipe.origin import digest
from rarkit.recipe.schema import Recipe
from rarkit.registry.loader import parts

CLAIM = ".claim.json"


@final
class _Owner(BaseModel):
    """What a receipt says of whose it is, in any format."""

    model_config = ConfigDict(strict=True)

    variant: Variant | None = None
    recipe: dict[str, JsonValue] | None = None


def variant(recipe: Recipe, runs: Path) -> dict[str, Any]:
    """What makes a recipe the same one as before, as plain JSON data.

    That is its file, relative to the folder of runs, with the overrides; an edited file is still the same recipe. What Python
    changed after loading counts by its content, and so does a recipe without a file.
    """
    origin = recipe.origin
    if origin.file is None:
        return {"content": recipe.content_digest}
    same = {"file": origin.seen_from(os.path.realpath(runs)), "overrides": list(origin.changes)}
    return same if recipe.content_digest == origin.content else {**same, "content": recipe.content_digest}


def folder_of(recipe: Recipe, runs: Path) -> Path:
    """The folder that a run of this recipe would have now. Writes nothing; errors are those of ``claimed``."""
    own = variant(recipe, runs)
    with writing_results(runs):
        return next(folder for folder in _candidates(recipe, runs, own) if _owner(folder, recipe, own) in (None, own))


def claimed(recipe: Recipe, runs: Path) -> Path:
    """Claims the folder for a run of this recipe, and returns it. A run that holds it already gets it again.

    Raises:
        StoreError: the folder cannot be written.
    """
    own = variant(recipe, runs)
    with writing_results(runs):
        for folder in _candidates(recipe, runs, own):
            if folder.is_symlink():
                raise StoreError(
                    f"{folder} is a link, and results are written through none. Remove it, or name another folder for all results "
                    "with --runs: that one may be a link."
                )
            if _owner(folder, recipe, own) == own or _claim(folder, recipe, own):
                return folder
    raise AssertionError("a hash of 256 bits is nobody else's")


def release(folder: Path, own: dict[str, Any]) -> None:
    """Gives up the claim of a run that ended; its receipt, if it left one, keeps the folder."""
    claim = folder / CLAIM
    with writing_results(folder):
        if _claim_of(folder) == own:
            claim.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def writing_results(folder: Path) -> Iterator[None]:
    """Turns the operating system's errors into a StoreError, or WriteError, that names the folder of results."""
    try:
        yield
    except OSError as error:
        kind = WriteError if may_pass(error) else StoreError
        raise kind(
            f"cannot write results to {folder}: {error}. The stages' outputs are safe in the store: fix this, and run again."
        ) from error


def _candidates(recipe: Recipe, runs: Path, own: dict[str, Any]) -> list[Path]:
    # That of a recipe in a pickle is whatever was written there.
    hashed, name = digest(own), folder_name_of(recipe.recipe_name)
    return [runs / name, *(runs / f"{name}-{hashed[:length]}" for length in (6, 12, 64))]


def _claim(folder: Path, recipe: Recipe, own: dict[str, Any]) -> bool:
    """Whether this run could claim a folder that is nobody's."""
    if _owner(folder, recipe, own) is not None:
        return False
    if not write_once(folder / CLAIM, json.dumps(own)):
        return _owner(folder, recipe, own) == own
    # Whoever held the claim before may have left a receipt.
    if _owner(folder, recipe, own) != own:
        release(folder, own)
        return False
    return True


def _owner(folder: Path, recipe: Recipe, own: dict[str, Any]) -> dict[str, Any] | None:
    """The variant that a folder belongs to; None if it is nobody's, empty if it is unknown whose it is."""
    receipt = _read(_Owner, folder / RECEIPT)
    if receipt is not None and receipt.recipe is not None:
        if receipt.variant is not None:
            return _told(receipt.variant)
        # Receipts of an older rarkit do not say whose they are.
        return own if _is_same(receipt.recipe, recipe) else {}
    return _claim_of(folder)


def _claim_of(folder: Path) -> dict[str, Any] | None:
    """The variant that claims a folder; None if nobody does, empty if it is unknown who does."""
    claim = _read(Variant, folder / CLAIM)
    return None if claim is None else _told(claim)


def _told(variant: Variant) -> dict[str, Any]:
    return variant.model_dump(mode="json", exclude_unset=True)


def _read(model: type[Model], path: Path) -> Model | None:
    """What a file says; None if there is no such file, nothing if it is damaged.

    Raises:
        StoreError: it is a pipe or a device, or far too large.
    """
    try:
        return parsed(model, read_regular(path, LARGEST, raising=StoreError), LARGEST)
    except FileNotFoundError:
        return None
    except ValueError:
        return model()


def _is_same(tables: dict[str, Any], recipe: Recipe) -> bool:
    try:
        return parse_recipe(tables, parts()).content_digest == recipe.content_digest
    except RarkitError:
        # A part that is no longer installed, for example: then it is another recipe.
        return False
