"""Lists of images: tables of file names and labels, as text (CSV) or as JSON lines."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from dataclasses import replace
from typing import Any

from rarkit.datasets.file_lists import JSON_LINES, SEPARATORS, TABLES
from rarkit.datasets.image_listing import SUFFIXES
from rarkit.datasets.notices import some_of
from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, folder_of, reaching, within
from rarkit.files.regular import open_on
from rarkit.files.stored_json import JsonTable, parsed
from rarkit.proposal.choice import Choice
from rarkit.proposal.layout import Layout

LISTS = (*TABLES, *JSON_LINES)
FILES = ("file", "file_name", "filename", "path", "file_path", "filepath", "image", "image_path", "image_file", "img", "name")
"""What people call the column of file names, the likeliest first."""
LABELS = ("label", "class", "category", "target", "class_name", "label_name", "y", "cls", "class_id")
SPLITS = ("split", "subset", "partition")
FIRST_BYTES = 2**18
"""Of a list, which hold its first line."""


def list_layout(place: str) -> Layout:
    """The layout of a list: a CSV file with a first line of names, or JSON lines.

    Raises:
        DatasetError: it is not such a list, or its first file is not there.
    """
    row = _first_row(place)
    file = _column_of_files(row)
    if file is None:
        raise DatasetError(f"{place} has no column of file names: {_columns_instead(place, row)}")
    folder = folder_of(place)
    if not _is_there(within(folder, str(row[file]))):
        line = 2 if place.lower().endswith(TABLES) else 1
        raise DatasetError(
            f"{place}, line {line}: there is no file {row[file]}. Names are relative to the folder of the list, {folder}. If they "
            'start elsewhere, put the list there; or write a recipe with name = "image_list", path and root, the folder that they '
            "start from, in [dataset]."
        )
    return _layout(place, row, file)


def _columns_instead(place: str, row: dict[str, Any]) -> str:
    """What a list has in place of a column of file names, and what to do."""
    is_table, names = place.lower().endswith(TABLES), list(row)
    if is_table and any(name.lower().endswith(SUFFIXES) for name in names):
        return f"its first line is one of images, {some_of(names)}. Give it a first line: file,label"
    if not row:
        first = "Give it a first line, file,label, and" if is_table else 'Give it lines like {"file": "a.png", "label": "cat"},'
        return f"its first row has no names of columns. {first} a line for each image."
    one, other = names[0], names[-1] if len(names) > 1 else ""
    return (
        f"its first row has {some_of(names)}. Call it {', '.join(FILES[:3])} or so; or write a recipe whose [dataset] has "
        f'name = "image_list", path and these two lines, with the columns that are meant: file_column = {one!r} and '
        f"label_column = {other!r}."
    )


def list_layout_if_here(place: str) -> Layout | None:
    """The layout of a table that may be a list of images; None if it names no file that is there."""
    row = _first_row(place)
    file = _column_of_files(row)
    return None if file is None or not _is_there(within(folder_of(place), str(row[file]))) else _layout(place, row, file)


def found_lists(place: str, names: list[str]) -> Layout | None:
    """The layout of a folder with tables in it: a list of training images, with one of test images beside it if there is one."""
    training = [name for name in names if "train" in name.lower()] or names
    for name in training:
        layout = list_layout_if_here(within(place, name))
        if layout is None:
            continue
        if "train" not in name.lower() or layout.setting("split_column") is not None:
            return layout
        others = [other for other in names if other != name and any(word in other.lower() for word in ("val", "test"))]
        columns = {layout.setting("file_column"), layout.setting("label_column")} - {""}
        fitting = [other for other in others if columns <= _first_row(within(place, other)).keys()]
        if fitting:
            return layout.with_choices(Choice("test_path", within(place, fitting[0]), "the list of the test images"))
        return replace(layout, remarks=(*layout.remarks, *map(_is_not_used, others)))
    return None


def _is_not_used(name: str) -> str:
    return f"Not used: {name}, which lacks a column of the list of training images."


def _column_of_files(row: dict[str, Any]) -> str | None:
    return next((name for name in FILES if isinstance(row.get(name), str)), None)


def _layout(place: str, row: dict[str, Any], file: str) -> Layout:
    chosen = [
        Choice("name", "image_list", "images in files that a list names"),
        Choice("path", place, "the list; files are relative to its folder"),
        Choice("file_column", file, "the column of file names"),
    ]
    label = next((name for name in LABELS if name in row), None)
    remarks = []
    if label is None:
        # JSON and TOML have no null: an empty name is none.
        chosen.append(Choice("label_column", "", "no column holds classes, so all images are one"))
        remarks.append(f"No column of the list is called {', '.join(LABELS[:3])} or so: all images are one class.")
    else:
        chosen.append(Choice("label_column", label, "the column of classes"))
    split = next((name for name in SPLITS if name in row), None)
    if split is not None:
        chosen.append(Choice("split_column", split, "the column that says what is for training and what for tests"))
    return Layout("a list of files", tuple(chosen), tuple(remarks))


def _first_row(place: str) -> dict[str, Any]:
    """Columns and values of the first row; empty if there is none."""
    filesystem, path = filesystem_of(place)
    with reaching(place), open_on(filesystem, path) as stream:
        text = stream.read(FIRST_BYTES).decode("utf-8-sig", "replace")
    # What is no table has no columns: beside images it may be anything.
    with suppress(ValueError, csv.Error):
        return _columns(text) if place.lower().endswith(TABLES) else _keys(text)
    return {}


def _columns(text: str) -> dict[str, Any]:
    header = next(iter(text.splitlines()), "")
    rows = csv.DictReader(io.StringIO(text), delimiter=max(SEPARATORS, key=header.count))
    return {str(name).strip(): value for name, value in next(rows, {}).items() if name is not None}


def _keys(text: str) -> dict[str, Any]:
    line = next((line for line in text.splitlines() if line.strip()), "{}")
    return dict(parsed(JsonTable, line.encode()).root)


def _is_there(place: str) -> bool:
    filesystem, path = filesystem_of(place)
    with reaching(place):
        return bool(filesystem.exists(path))
