"""Local places that a user names for results: checked before the work begins, with errors that say what to do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rarkit.errors import StoreError, UserError
from rarkit.files.locations import filesystem_of, reaching

MOST_NUMBERED = 10_000
"""Files of one name beside each other."""


def check_writable(path: str, suffixes: tuple[str, ...] = (".png", ".npz"), *, folder: bool = True) -> None:
    """Refuses a place where nothing can be written, before hours are spent on what goes there. Leaves nothing behind.

    Args:
        path: a file or, if ``folder`` allows it, a folder. What does not exist yet counts as a folder if it has no suffix.
        suffixes: those that a file may have.
        folder: whether it may be a folder.

    Raises:
        UserError: another suffix, or a folder where a file is needed.
        StoreError: nothing can be written there.
    """
    suffix = os.path.splitext(path)[1].lower()
    if path == "-":
        raise UserError("images cannot be written to stdout. Name a file or, for a folder called -, write ./-.")
    if os.path.isdir(path) and suffix in suffixes:
        raise UserError(f"{path} is a folder, but its name ends like a file's: choose another place")
    if not (folder if is_folder(path) else suffix in suffixes):
        or_folder = ", or a folder (a name without suffix, or with / at its end)" if folder else ""
        raise UserError(f"{path} cannot be written: it has to end in {' or '.join(suffixes)}{or_folder}")
    with writing(path):
        nearest = Path(path) if is_folder(path) else Path(path).parent
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is not a folder")
        with tempfile.TemporaryFile(dir=nearest):
            pass


def free_name(path: str) -> str:
    """The path if nothing is there, or else the first free one of ``samples-2.png``, ``samples-3.png``, …"""
    stem, suffix = os.path.splitext(path)
    names = (path, *(f"{stem}-{number}{suffix}" for number in range(2, MOST_NUMBERED + 1)))
    free = next((name for name in names if not os.path.lexists(name)), None)
    if free is None:
        raise StoreError(f"{path} is there, and {MOST_NUMBERED - 1:,} numbered ones beside it. Name a file with -o.")
    return free


def is_folder(path: str) -> bool:
    """Whether a place is a folder, or would be one: it has no suffix, or ends in a slash."""
    return path.endswith(os.sep) or os.path.isdir(path) or os.path.splitext(path)[1] == ""


def check_free(place: str) -> None:
    """Raises StoreError if there is something at a path or fsspec URL."""
    filesystem, path = filesystem_of(place, raising=StoreError)
    with reaching(place, raising=StoreError):
        if filesystem.exists(path):
            raise StoreError(f"there is a {place} already, and it is left as it is. Remove it, or name another file.")


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns the operating system's errors into a StoreError that names the place."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{path} cannot be written ({reason}). Choose another place, or make room for it.") from error
