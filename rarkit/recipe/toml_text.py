"""Parses the TOML of strangers: bounded in size and depth, since Python's parser is not."""

from __future__ import annotations

import re
import sys
import tomllib
from typing import Any

from rarkit.errors import RecipeError
from rarkit.registry.shown import shortened, shown

MOST_BYTES = 2**20
"""Of a recipe. The names of ImageNet-21k's 21,841 classes fit; what the parser makes of it takes up to 500 times as much memory."""
DEEPEST = 8
"""How deep tables and lists of a recipe may lie in each other, and how many parts a key may have; the parts of rarkit need 3."""
_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*+"?|\'[^\']*+\'?|#.*')
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
        if line.count(".") >= DEEPEST and any(map(_is_long, _BETWEEN_KEYS.split(_STRING_OR_COMMENT.sub("string", line)))):
            raise RecipeError(f"{place}:{number}: a key has more than {DEEPEST} parts. Check where its dots come from.")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise _too_deep(place) from None
    except ValueError as error:
        # Of Python, which reads no number with so many digits.
        digits = sys.get_int_max_str_digits()
        where = next((number for number, line in enumerate(text.splitlines(), start=1) if len(line) > digits), 1)
        raise RecipeError(f"{place}:{where}: a whole number has more than {digits:,} digits. Write a smaller one.") from error
    _check_values(tables, place)
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


def _check_values(tables: dict[str, Any], place: str) -> None:
    """Raises RecipeError for what is nested too deep, whole numbers of more than 64 bits, which TOML has not, and NUL in texts."""
    # Level by level: a recursive walk would fail where it should find.
    level: list[tuple[str, Any]] = [("", tables)]
    for _ in range(DEEPEST + 1):
        below: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, dict):
                below += [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
            elif isinstance(value, list):
                below += [(path, item) for item in value]
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise RecipeError(f"{place}: {shortened(path)}: found {shown(value)}; numbers have 64 bits. Write a smaller one.")
            if "\0" in path or (isinstance(value, str) and "\0" in value):
                raise RecipeError(f"{place}: {shortened(path)!r} has a NUL character, which no name has. Remove it.")
        level = below
    if level:
        raise _too_deep(place)


def _too_deep(place: str) -> RecipeError:
    return RecipeError(f"{place}: tables or lists lie more than {DEEPEST} deep in each other. Check its brackets and keys.")
