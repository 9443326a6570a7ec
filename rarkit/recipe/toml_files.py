"""Reads the TOML file of a recipe and those that it extends."""

from __future__ import annotations

import re
import tomllib
from pathlib import PurePosixPath
from typing import Any, Literal

from rarkit.errors import RecipeError, closest
from rarkit.files.locations import filesystem_of, reaching
from rarkit.files.recognition import HEAD, POINTERS_AND_PAGES, instead, recognised
from rarkit.files.regular import read_on
from rarkit.recipe.edits import drop, merged
from rarkit.registry.component import Placed

Directive = Literal["extends", "unset"]
"""The top-level keys of a file that are not part of the recipe."""

LARGEST = 2**20
"""Bytes of a recipe at most: that of ImageNet-21k with all names of its classes has half as many."""


def read_tables(path: str, came_from: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged tables of a file and of those it extends, and the texts of these files by path, the file itself first.

    Raises:
        RecipeError: a file is missing or not TOML, the files extend each other in a circle, or one unsets what its base lacks.
    """
    if path in came_from:
        raise RecipeError(f"circular extends: {' → '.join([*came_from, path])}. Remove one of them.")
    text = _text(path, came_from)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        content = recognised(text.encode()[:HEAD])
        what = f". {instead(content)}" if content in POINTERS_AND_PAGES else ""
        raise RecipeError(f"{path} is not valid TOML: {error}{what}") from error
    folder = path.rsplit("/", 1)[0] if "/" in path else "."
    placed = _place(tables, folder)
    base, dropped = placed.pop("extends", None), placed.pop("unset", [])
    if not isinstance(dropped, list) or not all(isinstance(key, str) for key in dropped):
        raise RecipeError(f'{_line(path, text, "unset")}: expected a list of keys, as in unset = ["train", "sample.top_k"]')
    if base is None:
        if dropped:
            raise RecipeError(
                f"{_line(path, text, 'unset')}: there is nothing to unset, because this recipe extends no other. Remove unset."
            )
        return placed, {path: text}
    if not isinstance(base, str):
        raise RecipeError(f"{_line(path, text, 'extends')}: expected the path of a recipe, found {base!r}")
    base_path = base if "://" in base or base.startswith("/") else f"{folder}/{base}".removeprefix("./")
    base_tables, base_texts = read_tables(base_path, (*came_from, path))
    for key in dropped:
        drop(base_tables, key, _line(path, text, "unset"), base_path)
    return merged(base_tables, placed), {path: text, **base_texts}


def _line(path: str, text: str, key: Directive) -> str:
    """File, line and key of a directive, for messages."""
    lines = enumerate(text.splitlines(), start=1)
    number = next((number for number, line in lines if re.match(rf"\s*[\"']?{key}[\"']?\s*=", line)), None)
    return f"{path}:{number}: {key}" if number else f"{path}: {key}"


def _text(path: str, came_from: tuple[str, ...]) -> str:
    extended_by = f" (extended by {came_from[-1]})" if came_from else ""
    with reaching(path, f"Check the recipe's address{extended_by}.", raising=RecipeError):
        try:
            # Some editors begin a file with a byte order mark, which TOML does not allow.
            return read_on(*filesystem_of(path, raising=RecipeError), LARGEST, raising=RecipeError).decode("utf-8-sig")
        except FileNotFoundError:
            similar = _similar_recipe(path)
            hint = f" Did you mean {similar}?" if similar else ""
            raise RecipeError(f"there is no recipe {path}{extended_by}.{hint}") from None
        except IsADirectoryError:
            raise RecipeError(f"{path}{extended_by} is a folder. Name a recipe in it: {path.rstrip('/')}/….toml.") from None
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path} is not UTF-8 text ({error}). Is it a recipe? If so, save it as UTF-8.") from None


def _similar_recipe(path: str) -> str | None:
    """A recipe in the same folder with a similar name."""
    filesystem, plain = filesystem_of(path, raising=RecipeError)
    places = filesystem.glob(f"{plain.rsplit('/', 1)[0]}/*.toml") if "/" in plain else []
    # The folder and the suffix are the same for all: with them, any two names would resemble each other.
    close = closest(PurePosixPath(plain).stem, [PurePosixPath(place).stem for place in places])
    return str(PurePosixPath(path).with_name(f"{close[0]}.toml")) if close else None


def _place(value: Any, folder: str) -> Any:
    """The same tables, in which every string carries the folder of its file."""
    if isinstance(value, str):
        return Placed(value, folder)
    if isinstance(value, list):
        return [_place(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _place(item, folder) for key, item in value.items()}
    return value
