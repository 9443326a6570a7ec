"""What tells a file from all others, whichever path leads to it: splits that name a file in two ways share it all the same."""

from __future__ import annotations

import os
from collections.abc import Hashable

from fsspec.implementations.local import LocalFileSystem

from rarkit.files.locations import filesystem_of, reaching


def file_identity(place: str) -> Hashable:
    """The identity of the file at a path or fsspec URL: the same through links, and for hard links. Elsewhere, it is its path.

    Raises:
        DatasetError: there is no such file, or it cannot be reached.
    """
    filesystem, path = filesystem_of(place)
    if not isinstance(filesystem, LocalFileSystem):
        return filesystem, path
    with reaching(place):
        return local_identity(path, os.stat(path))


def local_identity(path: str, status: os.stat_result) -> Hashable:
    """The identity of a local file, of what ``os.stat`` says of it; its path, where the system numbers no files."""
    # One number, because data sets have millions of files.
    return status.st_dev << 64 | status.st_ino if status.st_ino else path
