"""The files of weights that a run read: whether they are still what they were."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rarkit.errors import WeightsError
from rarkit.files.weight_files import local_copy
from rarkit.files.weights import checksum
from rarkit.recipe.schema import Recipe

READING = ("model", "tokenizer")
"""The tables of the parts that a trained model is used with and that may read weights."""


def contents(identities: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The digest of what each part referred to, by table, from what the stages' fingerprints were made from."""
    tables = [item for identity in identities for item in identity.items()]
    return {table: part["content"] for table, part in tables if isinstance(part, dict) and "content" in part}


def check_weights(recipe: Recipe, used: Mapping[str, Any], folder: Path | None, tables: Iterable[str] = READING) -> None:
    """Checks the files of weights of some tables. A part reads weights if it has a setting ``weights``.

    Args:
        recipe: names the files.
        used: what the run used, by table: the digest of ``contents``, or the file's SHA-256. Tables that it lacks are not compared.
        folder: the run's, for messages; None if there is none.
        tables: which to check.

    Raises:
        WeightsError: a file is missing, or what the part refers to is not what the run used.
    """
    for table in tables:
        part = getattr(recipe, table)
        place, content = getattr(part, "weights", None), used.get(table)
        if place is None:
            continue
        try:
            local_copy(place)
            # The SHA-256 first: of a part that refers to more than the file, the digest is another.
            same = content is None or content == checksum(place) or _plain(content) == _plain(part.content())
        except WeightsError as error:
            raise WeightsError(f"the weights of [{table}] are missing: {error}") from error
        if not same:
            what = f"the file back that has the SHA-256 {content}" if _is_sha256(content) else "back what was there"
            raise WeightsError(
                f"the weights of [{table}] are not those that the run {folder} used: {place} has changed since. Put {what}, or run "
                "the recipe again."
            )


def _is_sha256(content: Any) -> bool:
    return isinstance(content, str) and re.fullmatch("[0-9a-f]{64}", content) is not None


def _plain(content: Any) -> str:
    # As it is read back: tuples are lists.
    return json.dumps(content, sort_keys=True)
