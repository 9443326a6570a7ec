"""Reads all of a stage output, and compares it with what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from fsspec import AbstractFileSystem

from rarkit.cache.record import Record
from rarkit.errors import StoreError
from rarkit.files.regular import open_on

PORTION_BYTES = 2**22


def file_sha256(filesystem: AbstractFileSystem, path: str) -> str:
    """The SHA-256 of a file, in hex; the file is read in portions."""
    checksum = hashlib.sha256()
    with open_on(filesystem, path, raising=StoreError) as file:
        while portion := file.read(PORTION_BYTES):
            checksum.update(portion)
    return checksum.hexdigest()


def wrong_content(
    record: Record,
    read_rows: Callable[[str, int, int], object],
    sha256: Callable[[str], str],
    on_block: Callable[[], None],
) -> str | None:
    """Reads all that the record of a complete output lists, and says which part is not what was written; None if all is.

    Args:
        record: the record.
        read_rows: reads rows of an array, from a first to an end row, as ``OutputFolder.read_rows`` does.
        sha256: the checksum of a file beside the arrays.
        on_block: called after each block.
    """
    for name, array in record.arrays.items():
        layout = array.layout
        try:
            # An array of no rows has metadata too.
            read_rows(name, 0, 0)
        except (FileNotFoundError, ValueError, KeyError) as error:
            return f"array {name!r}: {error}"
        for block in range(layout.blocks):
            try:
                read_rows(name, *layout.block_rows(block))
            except (FileNotFoundError, ValueError, KeyError) as error:
                return f"chunk {block} of array {name!r}: {error}"
            on_block()
    for name, checksum in record.sha256.items():
        try:
            if sha256(name) != checksum:
                return f"file {name!r} is not what was written"
        except FileNotFoundError:
            return f"file {name!r} is missing"
    return None
