"""Reads the TOML file of a recipe and those that it extends."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import PurePosixPath
from typing import Any, Literal

from rarkit.errors import RecipeError, closest, sentences
from rarkit.files.locations import filesystem_of, folder_of, reaching, unreachable
from rarkit.files.protocols import check_protocols, is_remote
from rarkit.files.recognition import HEAD, POINTERS_AND_PAGES, instead, recognised
from rarkit.files.regular import open_on
from rarkit.files.restraint import answer_of
from rarkit.recipe.edits import drop, merged
from rarkit.recipe.toml_text import MOST_BYTES, parsed, too_large
from rarkit.registry.component import LONGEST_LOCATION, Placed, relative_to_its_file
from rarkit.registry.shown import shown
from rarkit.runtime.progress import Reporter

Directive = Literal["extends", "unset"]
"""The top-level keys of a file that are not part of the recipe."""
LONGEST_CHAIN = 16
"""Recipes that may extend each other: a server could make up a new one each time."""


def read_tables(path: str, came_from: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged tables of a file and of those it extends, and the texts of these files by path, the file itself first.

    Raises:
        RecipeError: a file is missing or not TOML, the files extend each other in a circle, or one unsets what its base lacks.
    """
    if path in came_from:
        raise RecipeError(f"circular extends: {' → '.join([*came_from, path])}. Remove one of them.")
    if len(came_from) >= LONGEST_CHAIN:
        raise RecipeError(f"{came_from[0]}: more than {LONGEST_CHAIN} recipes extend each other, up to {path}. Merge some of them.")
    text = _text(path, came_from)
    try:
        tables = parsed(text, path)
    except tomllib.TOMLDecodeError as error:
        content = recognised(text.encode()[:HEAD])
        cure = instead(content) if content in POINTERS_AND_PAGES else "Correct it there."
        raise RecipeError(sentences(f"{path} is not valid TOML: {error}", cure)) from error
    placed = _place(tables, folder_of(path))
    base, dropped = placed.pop("extends", None), placed.pop("unset", [])
    if not isinstance(dropped, list) or not all(isinstance(key, str) for key in dropped):
        raise RecipeError(f'{_line(path, text, "unset")}: expected a list of keys, as in unset = ["train", "sample.top_k"].')
    if base is None:
        if dropped:
            raise RecipeError(
                f"{_line(path, text, 'unset')}: there is nothing to unset, because this recipe extends no other. Remove unset."
            )
        return placed, {path: text}
    if not isinstance(base, str) or not 0 < len(base) <= LONGEST_LOCATION:
        raise RecipeError(f"{_line(path, text, 'extends')}: expected the path of a recipe in quotes, found {shown(base)}.")
    base_path = str(relative_to_its_file(base))
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
    check_protocols(path, RecipeError)
    if came_from and is_remote(path):
        # Whoever wrote the recipe chose this address, not whoever runs it.
        Reporter().say(f"fetching {path}{extended_by}")
    with reaching(path, f"Check the recipe's address{extended_by}.", raising=RecipeError):
        try:
            content = answer_of(path, lambda: _read(path), RecipeError) if is_remote(path) else _read(path)
            # Some editors begin a file with a byte order mark, which TOML does not allow.
            return content.decode("utf-8-sig")
        except FileNotFoundError as error:
            if unreachable(error) is not None:
                raise
            similar = _similar_recipe(path)
            start = f": it starts at {os.getcwd()}" if not is_remote(path) and not os.path.isabs(path) else ""
            hint = f" Did you mean {similar}?" if similar else f" Check the path{start}."
            raise RecipeError(f"there is no recipe {path}{extended_by}.{hint}") from None
        except IsADirectoryError:
            raise RecipeError(f"{path}{extended_by} is a folder. Name a recipe in it: {path.rstrip('/')}/….toml.") from None
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path} is not UTF-8 text ({error}). Is it a recipe? If so, save it as UTF-8.") from None


def _read(path: str) -> bytes:
    # Held while it is read: an archive closes its files when it goes.
    filesystem, plain = filesystem_of(path, raising=RecipeError)
    with open_on(filesystem, plain, raising=RecipeError) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise too_large(path)
    return content


def _similar_recipe(path: str) -> str | None:
    """A recipe with a similar name in the same folder of this machine."""
    if is_remote(path):
        return None
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
