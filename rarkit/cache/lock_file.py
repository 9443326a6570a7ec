"""The file of a lock, on any file system: made by one process alone, and taken over by one alone."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any, final

from fsspec import AbstractFileSystem

from rarkit.cache.holder import Holder
from rarkit.errors import StoreError
from rarkit.files.own_folder import OwnFolder
from rarkit.files.regular import read_regular
from rarkit.runtime.clock import seconds

LARGEST = 2**20
"""Bytes of a lock, which has less than a thousand."""


@final
class NoLockError(StoreError):
    """What lies in the place of a lock is none that a process can hold."""


@final
class LockFile:
    """Each request ends within ``patience`` seconds where the file system allows it (those of object stores do).

    File systems have exceptions of their own, which all methods pass on.
    """

    def __init__(self, filesystem: AbstractFileSystem, path: str, patience: float) -> None:
        self.filesystem = filesystem
        self.path = path
        self._patience: dict[str, Any] = {"timeout": patience} if filesystem.async_impl else {}
        self._claim: tuple[bytes, float] | None = None

    def check_no_link(self) -> None:
        """Raises StoreError if a link lies in its place: through one it is neither made nor renewed."""
        if self._is_link(self.path):
            raise StoreError(f"{self.path} is a link, and no lock is taken through one. Remove it.")

    def _is_link(self, path: str) -> bool:
        return isinstance(self.filesystem, OwnFolder) and self.filesystem.islink(path)

    def read(self) -> bytes | None:
        """What is in it; None if there is none. Raises NoLockError if it is no file of a lock."""
        return self._read(self.path)

    def _read(self, path: str) -> bytes | None:
        try:
            if isinstance(self.filesystem, OwnFolder):
                return self._read_regular(path)
            # Given a start, s3fs sends one request; without, it first asks for the size.
            return bytes(self.filesystem.cat_file(path, start=0, **self._patience))
        except FileNotFoundError:
            return None

    def _read_regular(self, path: str) -> bytes:
        try:
            return read_regular(path, LARGEST, raising=NoLockError)
        except NoLockError as error:
            raise NoLockError(f"{error} It is no lock. Remove it.") from error
        except IsADirectoryError as error:
            raise NoLockError(f"{path} is a folder, and no lock. Remove it.") from error

    def create(self, contents: bytes) -> bool:
        """Makes it, unless there is one."""
        return self._create(self.path, contents)

    def _create(self, path: str, contents: bytes) -> bool:
        for attempt in range(3):
            try:
                self.filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
                if isinstance(self.filesystem, OwnFolder):
                    self.filesystem.pipe_file(path, contents, mode="create")
                else:
                    with self.filesystem.open(path, "xb") as file:
                        file.write(contents)
                break
            except FileExistsError:
                return False
            except FileNotFoundError:
                # Somebody else removes what has been the empty folder of an output.
                if attempt == 2:
                    raise
        # Servers that do not know exclusive creation replace what is there: the last one to write has it.
        return self._read(path) == contents

    def write(self, contents: bytes) -> None:
        """Writes over it. Locally in place: a full disk or a kill leaves the old contents or the new."""
        if isinstance(self.filesystem, OwnFolder):
            self.filesystem.overwrite(self.path, contents)
        else:
            self.filesystem.pipe_file(self.path, contents, **self._patience)

    def exchange(self, old: bytes, new: bytes, free_after: float) -> bool:
        """Puts ``new`` in the place of ``old``, which nobody renews any more; False if somebody else has changed it or is about to.

        Who takes over claims these very contents first, by a file that one process alone can make. A claim that its process left
        behind is removed after ``free_after`` seconds.
        """
        claim = f"{self.path}.{hashlib.sha256(old).hexdigest()[:16]}"
        if not self._create(claim, new):
            self._remove_if_left(claim, free_after)
            return False
        began = seconds()
        try:
            if self.read() != old or seconds() - began > free_after / 2:
                return False
            self.write(new)
            return self.read() == new
        finally:
            self._remove(claim)

    def _remove_if_left(self, claim: str, free_after: float) -> None:
        contents = self._read(claim)
        if self._is_link(claim):
            self._remove(claim)
            return
        if contents is None:
            return
        if self._claim is None or self._claim[0] != contents:
            self._claim = contents, seconds()
        holder = Holder.of(contents)
        if (holder is not None and holder.is_gone()) or seconds() - self._claim[1] > free_after:
            self._remove(claim)

    def remove(self) -> None:
        """Removes it."""
        self._remove(self.path)

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.rm_file(path, **self._patience)
