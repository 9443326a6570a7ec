"""Opening local files that somebody else made: regular files alone, and no more bytes of them than such a file may have.

A named pipe waits for a writer who may never come; a device such as ``/dev/zero`` has no end. Links are followed.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from rarkit.errors import DatasetError, UserError
from rarkit.files.archives import check_member

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: str | Path, *, raising: type[UserError] = DatasetError) -> None:
    """Raises ``raising`` if a path leads to a pipe, socket or device, and OSError if it leads to nothing or to a folder."""
    _check(os.stat(path).st_mode, path, raising)


def check_not_special(path: str, *, raising: type[UserError] = DatasetError) -> None:
    """Raises ``raising`` if a path leads to something that is neither a file nor a folder. There may be nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # whoever opens it says why it cannot be
    if not stat.S_ISDIR(mode):
        _check(mode, path, raising)


def open_regular(path: str | Path, most: int | None = None, *, raising: type[UserError] = DatasetError) -> io.BufferedReader:
    """A local file, opened for reading.

    Args:
        path: the file, or a link to it.
        most: how many bytes it may have.
        raising: the error for a pipe, socket or device, and for a file that is too large.

    Raises:
        UserError: ``raising``, without having read or waited for anything.
        OSError: there is no such file, it may not be read, or it is a folder.
    """
    # Before it is opened, because opening a device may do something; and after, because the path may lead elsewhere by then.
    check_regular(path, raising=raising)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        _check(about.st_mode, path, raising)
        if most is not None and about.st_size > most:
            raise _too_large(path, f"{about.st_size:,} bytes", most, raising)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, most: int, *, raising: type[UserError] = DatasetError) -> bytes:
    """The bytes of a local file, ``most`` at most. Errors are those of ``open_regular``."""
    with open_regular(path, most, raising=raising) as file:
        # As much as there is, not as there may be, which Python would reserve. Files of /proc have more than their size says.
        size, left, pieces = os.fstat(file.fileno()).st_size, most + 1, []
        while piece := file.read(min(left, size + 2**12)):
            pieces.append(piece)
            left -= len(piece)
        return _within(b"".join(pieces), path, most, raising)


def open_on(filesystem: Any, path: str, *, raising: type[UserError] = DatasetError) -> IO[bytes]:
    """A file on an fsspec file system, opened for reading; a local one as ``open_regular`` does."""
    if isinstance(filesystem, LocalFileSystem):
        return open_regular(path, raising=raising)
    check_member(filesystem, path, raising=raising)
    file: IO[bytes] = filesystem.open(path, "rb")
    return file


def read_on(filesystem: Any, path: str, most: int, *, raising: type[UserError] = DatasetError) -> bytes:
    """The bytes of a file on an fsspec file system: of a local one as ``read_regular`` does, of another in one request.

    Raises:
        UserError: ``raising``, for a pipe, socket or device, and for more than ``most`` bytes.
    """
    if isinstance(filesystem, LocalFileSystem):
        return read_regular(path, most, raising=raising)
    check_member(filesystem, path, most, raising=raising)
    return _within(filesystem.cat_file(path), path, most, raising)


def _within(data: bytes, path: str | Path, most: int, raising: type[UserError]) -> bytes:
    if len(data) > most:
        raise _too_large(path, f"more than {most:,} bytes", most, raising)
    return data


def _check(mode: int, path: str | Path, raising: type[UserError]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
        raise raising(f"{path} is {kind}, not a regular file. Name a file, or a link to one.")


def _too_large(path: str | Path, size: str, most: int, raising: type[UserError]) -> UserError:
    return raising(f"{path} has {size}, where at most {most:,} bytes are read. Check that it is the right file.")
