"""Checksums of the files beside an output's arrays (its arrays' chunks carry their own)."""

from __future__ import annotations

import hashlib

from fsspec import AbstractFileSystem

PORTION = 2**22


def seal(filesystem: AbstractFileSystem, path: str) -> str:
    """The SHA-256 of a file, in hex, read in portions."""
    found = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while portion := file.read(PORTION):
            found.update(portion)
    return found.hexdigest()
