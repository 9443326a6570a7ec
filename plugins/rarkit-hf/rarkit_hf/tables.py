"""Tables of images in Parquet files: their columns, and the images of some rows.

Shape letters: N rows of the table, F some of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets import filesystem_of, reaching
from rarkit.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData, ParquetFile

AT_A_TIME = 4
"""Images that are taken from a file at a time, each of which may be a large one."""
MOST_ROWS = 2**28
"""Of a split: a small file may claim any number. Labels take 8 bytes each."""
STREAM = 2**20
"""Bytes of a column that are read from a file at a time."""
CURE = "It should be Parquet with a column of encoded images, as the datasets library writes it (to_parquet)."


@final
class Table:
    """Parquet files of the same columns, one after another."""

    def __init__(self, places: list[str]) -> None:
        """``places``: paths or fsspec URLs."""
        self.places = places

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the first file."""
        from pyarrow.parquet import read_schema

        with self._opened(self.places[0]) as stream:
            return read_schema(stream)

    @cached_property
    def _metadata(self) -> list[FileMetaData]:
        from pyarrow.parquet import read_metadata

        metadata = []
        for place in self.places:
            with self._opened(place) as stream:
                metadata.append(read_metadata(stream))
        count = sum(about.num_rows for about in metadata)
        if count > MOST_ROWS:
            raise DatasetError(
                f"{self.places[0]} and its like have {count:,} rows; a split may have {MOST_ROWS:,}. Name fewer files."
            )
        return metadata

    def __len__(self) -> int:
        return sum(about.num_rows for about in self._metadata)

    def files(self) -> Iterator[tuple[str, pa.Schema, int]]:
        """The place, the columns and the number of rows of each file."""
        for place, about in zip(self.places, self._metadata, strict=True):
            yield place, about.schema.to_arrow_schema(), about.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """All values of a column."""
        import pyarrow as pa

        columns = []
        for place, about in zip(self.places, self._metadata, strict=True):
            # Names that repeat are not copied: a small file could have large ones.
            with self._file(place, about, named=[name] if is_text(self.schema.field(name).type) else []) as file:
                self._check_column(file, name, place)
                columns.append(file.read(columns=[name]).column(name))
        if len({str(column.type) for column in columns}) > 1:
            raise DatasetError(f"the column {name!r} of {self.places[0]} has another type in other files of the split.")
        return pa.chunked_array([chunk for column in columns for chunk in column.chunks], type=columns[0].type)

    def images(self, name: str, rows_F: NDArray[np.int64]) -> Iterator[tuple[str, Any]]:
        """For each of some rows, ascending, its place and its value in a column. Only row groups with such rows are read."""
        start = 0
        for place, about in zip(self.places, self._metadata, strict=True):
            inside = rows_F[slice(*np.searchsorted(rows_F, (start, start + about.num_rows)))] - start
            if len(inside):
                with self._file(place, about) as file:
                    self._check_column(file, name, place)
                    yield from ((f"{place}, row {row}", value) for row, value in _values(file, name, inside))
            start += about.num_rows

    def sizes(self) -> list[tuple[str, int]]:
        """The name of each file, without its folder, and its size in bytes."""
        sizes: list[int] = []
        filesystem, _ = filesystem_of(self.places[0])
        with reaching(self.places[0]):
            sizes = filesystem.sizes([filesystem_of(place)[1] for place in self.places])
        return [(place.rsplit("/", 1)[-1], size) for place, size in zip(self.places, sizes, strict=True)]

    def _check_column(self, file: ParquetFile, name: str, place: str) -> None:
        if name not in file.schema_arrow.names:
            raise DatasetError(f"{place} has no column {name!r}, which {self.places[0]} has. All files of a split have the same.")

    @contextmanager
    def _file(self, place: str, metadata: FileMetaData, named: list[str] | None = None) -> Iterator[ParquetFile]:
        from pyarrow.parquet import ParquetFile

        with self._opened(place) as stream:
            yield ParquetFile(stream, metadata=metadata, read_dictionary=named, buffer_size=STREAM, pre_buffer=False)

    @contextmanager
    def _opened(self, place: str) -> Iterator[Any]:
        filesystem, path = filesystem_of(place)
        with reaching(place, CURE), filesystem.open(path, "rb") as stream:
            yield stream


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is that of text."""
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _values(file: ParquetFile, name: str, rows_F: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
    """Some rows of a file, ascending, and their values."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    group_F = np.searchsorted(ends, rows_F, side="right")
    for group in np.unique(group_F).tolist():
        wanted = rows_F[group_F == group].tolist()
        start = int(ends[group]) - file.metadata.row_group(group).num_rows
        for batch in file.iter_batches(AT_A_TIME, row_groups=[group], columns=[name]):
            while wanted and wanted[0] < start + batch.num_rows:
                row = wanted.pop(0)
                yield row, batch.column(0)[row - start].as_py()
            if not wanted:
                break
            start += batch.num_rows
