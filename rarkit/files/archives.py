"""Files in archives that a place reads from (``zip://…::…``): what one claims to be is bounded before any of it is read."""

from __future__ import annotations

from typing import Any

from rarkit.errors import UserError

LARGEST_UNSEEN = 2**26
"""Bytes that a file may expand to, however small it is in the archive."""
MOST_EXPANSION = 100
"""How many times as large a larger file may be as it is in the archive. Text reaches 20, zeros 1,000."""


def check_archive(filesystem: Any, raising: type[UserError]) -> None:
    """Refuses a tar archive with sparse files, which are zeros for as long as they claim; once, when it is opened."""
    if filesystem.protocol != "tar":
        return
    for member in filesystem.tar.getmembers():
        if member.issparse():
            raise raising(f"{member.name}, in a tar archive, is a sparse file, which rarkit does not read. Pack it without holes.")


def check_member(filesystem: Any, path: str, most: int | None = None, *, raising: type[UserError]) -> None:
    """Refuses a file of an archive that is too large, or takes far more room than it has there.

    Args:
        filesystem: any fsspec file system; nothing is asked of those that are no archives.
        path: the file on it; what is missing is for others to say.
        most: how many bytes it may have.
        raising: the error.
    """
    if filesystem.protocol not in ("zip", "tar") or not filesystem.exists(path):
        return
    size = filesystem.info(path)["size"]
    if most is not None and size > most:
        raise raising(f"{path}, in an archive, has {size:,} bytes; at most {most:,} are read. Make it smaller, or remove it.")
    member = filesystem.zip.NameToInfo.get(path) if filesystem.protocol == "zip" else None
    if member is not None and size > max(LARGEST_UNSEEN, MOST_EXPANSION * member.compress_size):
        raise raising(
            f"{path} expands from {member.compress_size:,} bytes in its archive to {size:,}, which no data do that rarkit reads. "
            "Unpack it, and name the file, if it is what you want."
        )
