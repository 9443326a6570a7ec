"""Files in archives that a place reads from (``zip://…::…``): what one claims to be is bounded before any of it is read."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import IO, Any

from rarkit.errors import UserError

LARGEST_UNSEEN = 2**26
"""Bytes that a file may expand to, however small it is in the archive."""
MOST_EXPANSION = 100
"""How many times as large a larger file may be as it is in the archive. Text reaches 20, zeros 1,000."""
MOST_MEMBERS = 2**18
"""Files of a zip archive: Python lists all before it reads one, which takes 2 KB and 15 µs each."""
LARGEST_DIRECTORY = 2**27
"""Bytes of the list of files in a zip archive."""
_END, _END_64, _LOCATOR_64, _MEMBER = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
_END_SIZE, _END_64_SIZE, _LOCATOR_64_SIZE, _MEMBER_SIZE = 22, 56, 20, 46
_LONGEST_COMMENT = 2**16


def check_directory(file: IO[bytes], place: str, raising: type[UserError]) -> None:
    """Refuses a zip archive with more files than ``MOST_MEMBERS``. What is no zip archive at all is for others to say.

    How many there are is counted: what an archive says of it is believed by nobody.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - _LONGEST_COMMENT - _END_SIZE - _LOCATOR_64_SIZE - _END_64_SIZE))
    tail = file.read()
    at = len(tail) - _END_SIZE
    # As Python looks for it.
    if not (tail[at:].startswith(_END) and tail.endswith(bytes(2))):
        at = tail.rfind(_END)
    if at < 0 or at + _END_SIZE > len(tail):
        return
    (length,) = struct.unpack_from("<L", tail, at + 12)
    start = at - _LOCATOR_64_SIZE - _END_64_SIZE
    if start >= 0 and tail[start:].startswith(_END_64) and tail[at - _LOCATOR_64_SIZE :].startswith(_LOCATOR_64):
        (length,) = struct.unpack_from("<Q", tail, start + 40)
        at = start
    first = size - len(tail) + at - length
    if first < 0 or length <= MOST_MEMBERS * _MEMBER_SIZE:
        return
    many = length > LARGEST_DIRECTORY
    if not many:
        file.seek(first)
        many = file.read(length).count(_MEMBER) > MOST_MEMBERS
    if many:
        raise raising(
            f"{place} has more than {MOST_MEMBERS:,} files, which take long to list in a zip archive. Unpack it, or pack them into "
            "several tar archives, for the dataset webdataset."
        )


def check_archive(filesystem: Any, raising: type[UserError]) -> None:
    """Refuses a tar archive with sparse files, which are zeros for as long as they claim; once, when it is opened."""
    if filesystem.protocol == "zip":
        _list_briefly(filesystem)
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


def _list_briefly(filesystem: Any) -> None:
    """Has fsspec keep name, size and type of each file of a zip archive; it would keep 2 KB of each."""
    members = filesystem.zip.infolist()
    kept = {name: {"name": name, "size": 0, "type": "directory"} for name in _folders(member.filename for member in members)}
    for member in members:
        name = member.filename.rstrip("/")
        kept[name] = {"name": name, "size": member.file_size, "type": "directory" if member.is_dir() else "file"}
    filesystem.dir_cache = kept


def _folders(names: Iterable[str]) -> set[str]:
    """All folders in which files of these names lie, at any depth."""
    folders: set[str] = set()
    for name in names:
        folder = name.rstrip("/").rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders
