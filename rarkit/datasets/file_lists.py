"""Reads lists of files and their labels: CSV with a header, or a JSON table on each line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from rarkit.datasets.notices import some_of
from rarkit.errors import DatasetError, closest
from rarkit.files.locations import filesystem_of, reaching
from rarkit.files.recognition import HEAD, instead, recognised
from rarkit.files.regular import read_on
from rarkit.files.stored_json import JsonTable, parsed

TABLES, JSON_LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
SEPARATORS = (",", ";", "\t")
LARGEST_LIST = 2**29
"""Bytes of a list: 10 million files of 50 characters."""
LONGEST_ROW = 2**20
"""Characters of a row."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


@final
class ListedFile(NamedTuple):
    """A row of a list: its line, and what it says; a label or split without a column is empty."""

    line: int
    file: str
    label: str
    split: str


@final
@dataclass(frozen=True)
class Columns:
    """The names of the columns; empty for one that is not there."""

    file: str
    label: str
    split: str


def read_list(place: str, columns: Columns) -> list[ListedFile]:
    """The rows of a list, in order.

    Args:
        place: a path or fsspec URL that ends in one of ``TABLES`` or ``JSON_LINES``.
        columns: columns of the CSV, or keys of the JSON tables.

    Raises:
        DatasetError: there is no such list, it is too large, it lacks a column, or a row lacks a value; it names place and line.
    """
    name = place.split("::", 1)[0].lower()
    if not name.endswith((*TABLES, *JSON_LINES)):
        raise DatasetError(f"{place} should be a list of files: CSV, named {' or '.join(TABLES)}, or JSON lines, {JSON_LINES[0]}.")
    filesystem, path = filesystem_of(place)
    with reaching(place):
        data = read_on(filesystem, path, LARGEST_LIST)
    read = _table if name.endswith(TABLES) else _json_lines
    try:
        rows = list(read(data, place, columns))
    except UnicodeDecodeError as error:
        cure = instead(recognised(data[:HEAD])).replace("Fetch it again.", "Save it in that encoding.")
        raise DatasetError(f"{place} is no text in UTF-8. {cure}") from error
    if not rows:
        raise DatasetError(f"{place} lists no files. Add a row for each image.")
    for part, column in vars(columns).items():
        empty = [row.line for row in rows if column and not getattr(row, part)]
        if empty:
            more = f", as are those of {len(empty) - 1:,} more of {len(rows):,} rows" if len(empty) > 1 else ""
            cure = "Correct the line." if len(empty) == 1 else "Fill them in, or remove the rows."
            raise _wrong(place, empty[0], f"its {column} is empty{more}", cure)
    return rows


def are_numbers(labels: set[str]) -> bool:
    """Whether labels are whole numbers from 0, all of them, as they are usually written."""
    return all(_NUMBER.fullmatch(label) for label in labels)


def _table(data: bytes, place: str, columns: Columns) -> Iterator[ListedFile]:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    separator = _separator(text.readline(LONGEST_ROW), columns.file)
    text.seek(0)
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        while line := text.readline(LONGEST_ROW + 1):
            taken += len(line)
            if taken > LONGEST_ROW:
                raise DatasetError(f"{place}: a row has more than {LONGEST_ROW:,} characters. Check its quotation marks.")
            yield line

    reader = csv.reader(lines(), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        wanted = {name: _place(header, name, part, place) for part, name in vars(columns).items() if name}
        for row in reader:
            taken = 0
            if not any(row):
                continue
            if len(row) != len(header):
                raise _wrong(place, reader.line_num, f"it has {len(row)} values, but the header has {len(header)}")
            yield _listed(reader.line_num, {name: row[at] for name, at in wanted.items()}, columns, place)
    except csv.Error as error:
        raise _wrong(place, reader.line_num, f"{error}, which is no CSV") from error


def _separator(header: str, column: str) -> str:
    """What separates the columns: whatever makes ``column`` one of them; a comma if nothing does."""
    for separator in SEPARATORS:
        if column in (name.strip().strip('"') for name in header.split(separator)):
            return separator
    return max(SEPARATORS, key=header.count)


def _place(header: list[str], name: str, part: str, place: str) -> int:
    """Where a column is."""
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise DatasetError(f"{place} has {header.count(name)} columns {name!r}. Give each column a name of its own.")
    raise DatasetError(f"{place} has no column {name!r}. {_cure(part, name, header)}")


def _cure(part: str, name: str, there: list[str]) -> str:
    """What to do about a column that is not there."""
    near = closest(name, there)
    perhaps = f", perhaps {near[0]!r}" if near else ""
    single = ', or to "" for a single class' if part == "label" else ""
    return f"Set {part}_column to one that is there{perhaps}{single}; there are: {some_of(there) or 'none'}."


def _json_lines(data: bytes, place: str, columns: Columns) -> Iterator[ListedFile]:
    for line, text in enumerate(io.BytesIO(data), 1):
        if not text.strip():
            continue
        text.decode("utf-8-sig")
        try:
            row = parsed(JsonTable, text, LONGEST_ROW).root
        except ValueError as error:
            raise _wrong(place, line, f'{error}; each line should be a table: {{"{columns.file}": …}}') from error
        for part, name in vars(columns).items():
            if name and name not in row:
                raise _wrong(place, line, f"it has no {name!r}", _cure(part, name, list(row)))
        yield _listed(line, row, columns, place)


def _listed(line: int, row: dict[str, Any], columns: Columns, place: str) -> ListedFile:
    values = []
    for name in (columns.file, columns.label, columns.split):
        value = row.get(name, "") if name else ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _wrong(place, line, f"its {name} is {str(value)[:50]!r}, which is no text and no whole number")
        values.append(str(value).strip())
    return ListedFile(line, *values)


def _wrong(place: str, line: int, what: str, cure: str = "Correct the line.") -> DatasetError:
    return DatasetError(f"{place}, line {line}: {what}. {cure}")
