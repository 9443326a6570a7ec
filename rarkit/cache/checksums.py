"""Checksums of the files beside an output's arrays (its arrays' chunks carry their own)."""

from __future__ import annotations

import hashlib

from fsspec import AbstractFileSystem

PORTION_BYTES = 2**22


def file_sha256(filesystem: AbstractFileSystem, path: str) -> str:
    """The SHA-256 of a file, in hex; the file is read in portions."""
    checksum = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while portion := file.read(PORTION_BYTES):
            checksum.update(portion)
    return checksum.hexdigest()
