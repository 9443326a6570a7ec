"""Parses the TOML of strangers: bounded in size and depth, since Python's parser is not."""

from __future__ import annotations

import re
import sys
import tomllib
from typing import Any

from rarkit.errors import RecipeError

MOST_BYTES = 2**20
"""Of a recipe. The names of ImageNet-21k's 21,841 classes fit; what the parser makes of it takes up to 500 times as much memory."""
DEEPEST = 8
"""How deep tables and lists of a recipe may lie in each other, and how many parts a key may have; the parts of rarkit need 3."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?|\'[^\']*+\'?')
_BETWEEN_KEYS = re.compile(r"[=,{}\[\]]")


def parsed(text: str, place: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Args:
        text: the text.
        place: where it comes from, for messages.

    Raises:
        tomllib.TOMLDecodeError: it is not TOML.
        RecipeError: it is larger, nested deeper, or has larger numbers than a recipe may have.
    """
    if len(text) > MOST_BYTES:
        raise too_large(place)
    # The parser's time and memory grow with the square of the parts of a key.
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") >= DEEPEST and any(map(_is_long, _BETWEEN_KEYS.split(_STRING.sub("string", line)))):
            raise RecipeError(f"{place}:{number}: a key has more than {DEEPEST} parts. Check where its dots come from.")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise _too_deep(place) from None
    except ValueError as error:
        digits = sys.get_int_max_str_digits()
        raise RecipeError(f"{place}: a whole number has more than {digits:,} digits. Write a smaller one.") from error
    _check_depth(tables, place)
    return tables


def _is_long(piece: str) -> bool:
    """Whether more than ``DEEPEST`` words are joined by dots."""
    words = 0
    for part in piece.split("."):
        words = words + 1 if len(part.split()) == 1 else 0
        if words > DEEPEST:
            return True
    return False


def too_large(place: str) -> RecipeError:
    """The error for a recipe of more than ``MOST_BYTES``."""
    return RecipeError(f"{place} has more than {MOST_BYTES:,} bytes. Is it a recipe? Name the TOML file of one.")


def _check_depth(tables: dict[str, Any], place: str) -> None:
    # Level by level: a recursive walk would fail where it should find.
    level: list[Any] = [tables]
    for _ in range(DEEPEST):
        level = [item for value in level for item in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return
    raise _too_deep(place)


def _too_deep(place: str) -> RecipeError:
    return RecipeError(f"{place}: tables or lists lie more than {DEEPEST} deep in each other. Check its brackets and keys.")
