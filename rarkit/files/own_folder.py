"""Writing into a folder of rarkit's own, such as a store: through no link below it, neither to a file nor to a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any, BinaryIO, final

from fsspec.implementations.local import LocalFileSystem

from rarkit.errors import StoreError
from rarkit.files.atomic import Bytes, created, overwrite, rewriting, write_bytes


@final
class OwnFolder(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The local file system for one who writes below a folder. Paths are absolute, and begin with that of the folder.

    The folder itself may be a link, or lie below one: who named it wanted that. Below it, all folders are rarkit's, which makes no
    links; one that somebody planted there is refused, also if it is planted at the very moment of writing.
    """

    cachable = False

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(**options)
        self.root = root

    def pipe_file(self, path: str, value: Bytes, mode: str = "overwrite", **_: Any) -> None:
        """Writes a file, whole or not at all; with the mode ``"create"``, raises FileExistsError where there is one."""
        with self._folder_of(path, make=True) as (folder, name):
            if mode == "create":
                with created(name, folder=folder) as file:
                    file.write(value)
            else:
                write_bytes(name, value, folder=folder)

    @contextmanager
    def rewriting(self, path: str) -> Iterator[BinaryIO]:
        """A file to be written in portions: it takes its place when all of it is there, as of ``atomic.rewriting``."""
        with self._folder_of(path, make=True) as (folder, name), rewriting(name, folder=folder) as file:
            yield file

    def overwrite(self, path: str, value: Bytes) -> None:
        """Writes over a small file in place, as ``atomic.overwrite`` does."""
        with self._folder_of(path) as (folder, name):
            try:
                overwrite(name, value, folder=folder)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a folder, and those that it lies in."""
        if PurePath(path) == PurePath(self.root):
            os.makedirs(path, exist_ok=exist_ok)
            return
        with self._folder_of(path, make=True) as (folder, name):
            if exist_ok:
                os.close(_opened(name, folder, path, make=True))
            else:
                os.mkdir(name, dir_fd=folder)

    def rm_file(self, path: str) -> None:
        """Removes a file, or a link itself."""
        with self._folder_of(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def rmdir(self, path: str) -> None:
        """Removes an empty folder."""
        if PurePath(path) == PurePath(self.root):
            os.rmdir(path)
            return
        with self._folder_of(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    @contextmanager
    def _folder_of(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder in which a file is, and the file's name in it."""
        *above, name = PurePath(path).relative_to(self.root).parts
        if ".." in (*above, name):
            raise StoreError(f"{path} leads out of {self.root}, so it is not written. Check who may write there.")
        folder, place = self._opened_root(make=make), self.root
        try:
            for part in above:
                place = f"{place}/{part}"
                below = _opened(part, folder, place, make=make)
                os.close(folder)
                folder = below
            yield folder, name
        finally:
            os.close(folder)

    def _opened_root(self, *, make: bool) -> int:
        try:
            return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
        os.makedirs(self.root, exist_ok=True)
        return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)


def _opened(name: str, above: int, place: str, *, make: bool) -> int:
    """The descriptor of a folder in another one, which is not followed if it is a link."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except OSError as error:
        if make and error.errno == errno.ENOENT:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
            return _opened(name, above, place, make=False)
        # Linux calls a link to a folder no folder, others call it a loop.
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK) and os.path.islink(place):
            raise StoreError(
                f"{place} is a link, and nothing is written through links in a store. Remove it, or name the folder that it leads "
                "to as the store."
            ) from error
        raise OSError(error.errno, error.strerror, place) from error
