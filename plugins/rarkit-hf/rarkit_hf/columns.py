"""Which columns of a table hold the images and the labels, and what the labels mean.

Shape letters: N rows of the table, V classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets import notify, some_of
from rarkit.errors import DatasetError
from rarkit_hf.tables import is_text

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = ("label", "labels", "class")
"""Usual names of columns of labels."""
ONLY_CLASS = "images"
"""The class of images without labels."""
LARGEST_LABEL = 2**20
"""Labels that are numbers are below."""


@final
@dataclass(frozen=True)
class Columns:
    """The columns of images and of labels; the names of the classes where the table has them."""

    image: str
    label: str | None
    names: tuple[str, ...] | None


def columns_of(schema: pa.Schema, place: str, image: str | None, label: str | None) -> Columns:
    """Finds the columns.

    Args:
        schema: of a file.
        place: where it is, for messages.
        image, label: names of the columns; None for those that are found, and an empty ``label`` for none.

    Raises:
        DatasetError: there is no such column, or several could be meant.
    """
    from datasets import ClassLabel, Features, Image

    with_features = Features.from_arrow_schema(schema)
    chosen = _one(image, [name for name, feature in with_features.items() if isinstance(feature, Image)], schema, place, "image")
    if chosen is None:
        chosen = _one(image, [field.name for field in schema if _holds_bytes(field.type)], schema, place, "image")
    if chosen is None:
        there = ", ".join(schema.names)
        raise DatasetError(f"{place} has no column of images. Its columns are: {there}. Set image to one of them.")
    if label == "":
        return Columns(chosen, None, None)
    of_classes = [name for name, feature in with_features.items() if isinstance(feature, ClassLabel)]
    labels = _one(label, of_classes, schema, place, "label")
    if labels is None:
        labels = _one(label, [name for name in LABELS if name in schema.names][:1], schema, place, "label")
    if labels is None:
        others = [name for name in schema.names if name != chosen]
        of = f"; of its columns, label could be one of: {some_of(others)}" if others else ""
        notify(f"{place} has no column of labels, so all images are one class{of}")
        return Columns(chosen, None, None)
    return Columns(chosen, labels, names_of(schema, labels))


def names_of(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """The names of the classes of a column of the type ``ClassLabel``; None for one of another type."""
    from datasets import ClassLabel, Features

    feature = Features.from_arrow_schema(schema)[column]
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None


def _one(named: str | None, candidates: list[str], schema: pa.Schema, place: str, what: str) -> str | None:
    """The column that is named, or the only candidate; None if there is none."""
    if named is not None:
        if named not in schema.names:
            raise DatasetError(f"{place} has no column {named!r}; it has: {', '.join(schema.names)}. Set {what} to one of them.")
        return named
    if len(candidates) > 1:
        none = ', or label = "" for a single class' if what == "label" else ""
        raise DatasetError(f"{place} has several columns of {what}s: {', '.join(candidates)}. Set {what} to one of them{none}.")
    return candidates[0] if candidates else None


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


@final
@dataclass(frozen=True)
class Labels:
    """The labels of a table: whole numbers from 0, those of ``names`` where labels are names."""

    numbers_N: NDArray[np.int64]
    names: tuple[str, ...] | None


def labels_in(column: pa.ChunkedArray, place: str, name: str) -> Labels:
    """The labels of a column.

    Raises:
        DatasetError: labels are missing, negative, too large, or neither names nor whole numbers.
    """
    import pyarrow.types as types

    if column.null_count:
        row = next(row for row, value in enumerate(column) if not value.is_valid)
        missing = f"{column.null_count:,} in all have none"
        raise DatasetError(f"{place}: row {row} has no {name} ({missing}). Choose another split, or another label.")
    if is_text(column.type) or (types.is_dictionary(column.type) and is_text(column.type.value_type)):
        encoded = (column if types.is_dictionary(column.type) else column.dictionary_encode()).unify_dictionaries()
        names = tuple(encoded.chunk(0).dictionary.to_pylist()) if encoded.num_chunks else ()
        numbers = [np.zeros(0, dtype=np.int64), *(chunk.indices.to_numpy() for chunk in encoded.chunks)]
        return Labels(np.concatenate(numbers).astype(np.int64), names)
    if not (types.is_integer(column.type) or types.is_boolean(column.type)):
        raise DatasetError(
            f"{place}: {name} is {column.type}, but labels are names or whole numbers. Set label to another column, or "
            'to "" for a single class.'
        )
    labels_N = column.to_numpy()
    wrong = np.flatnonzero((labels_N < 0) | (labels_N >= LARGEST_LABEL))
    if len(wrong):
        raise DatasetError(
            f"{place}: row {wrong[0]} has the {name} {labels_N[wrong[0]]}, but labels are numbers from 0, and less than "
            f"{LARGEST_LABEL:,}. In test splits, -1 means that labels are not published: set test to another split."
        )
    return Labels(labels_N.astype(np.int64), None)


def renumbered(
    labels_N: NDArray[np.int64], own: tuple[str, ...], names: tuple[str, ...], place: str, name: str
) -> NDArray[np.int64]:
    """Numbers of a ``ClassLabel`` with other names than that of the training images, or in another order, as numbers of that (N,).

    Args:
        labels_N: those of a file.
        own: its names, by number.
        names: those of the training images.
        place: the file, for messages.
        name: of the column.

    Raises:
        DatasetError: a label has a name that is none of those of the training images.
    """
    number_of = {each: number for number, each in enumerate(names)}
    numbers_V = np.array([number_of.get(each, -1) for each in own], dtype=np.int64)
    numbers_N = np.where(labels_N < len(own), numbers_V.take(labels_N, mode="clip"), -1)
    wrong = np.flatnonzero(numbers_N < 0)
    if len(wrong):
        label = int(labels_N[wrong[0]])
        raise DatasetError(
            f"{place}: row {wrong[0]} has the {name} {repr(own[label]) if label < len(own) else label}, which is none of the "
            f"{len(names):,} classes of the training images. Leave such rows or the file out, or give all files the same classes."
        )
    return numbers_N
