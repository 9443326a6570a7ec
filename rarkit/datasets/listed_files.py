"""The files that a list names: where they lie, and how large they are."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, final

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rarkit.datasets.decoding import EncodedImage, Source
from rarkit.datasets.file_lists import ListedFile
from rarkit.datasets.links import LinksOut
from rarkit.errors import DatasetError
from rarkit.files.identities import local_identity
from rarkit.files.locations import filesystem_of, in_this_process_alone, reaching, unreachable
from rarkit.files.protocols import protocols_of

FEW = 1000
"""Files elsewhere that are asked for their sizes at a time; for more, their whole folder is listed, in fewer requests."""

CURE = "Correct the list, or set root to the folder that the names start from."


@final
class Files(Source):
    """Files in a folder, in the order of a list."""

    def __init__(self, place: str, root: str, rows: list[tuple[ListedFile, int]]) -> None:
        """Looks for each file.

        Args:
            place: the list, for messages.
            root: the folder, a path or fsspec URL.
            rows: the files, each with its label.

        Raises:
            DatasetError: a file is not there, is named twice, or does not lie in the folder; the message names its line.
        """
        self.filesystem, folder = filesystem_of(root)
        self.portable = not in_this_process_alone(root)
        start = f"{folder.rstrip('/')}/" if folder else ""
        names = [_relative(row, (f"{root.rstrip('/')}/", start), place) for row, _ in rows]
        _check_different(names, rows, place)
        self._files = [(f"{start}{name}", label) for name, (_, label) in zip(names, rows, strict=True)]
        paths = [path for path, _ in self._files]
        self.links: Mapping[str, int] = {}
        if isinstance(self.filesystem, LocalFileSystem):
            links = LinksOut(folder)
            found = [_local(path, links) for path in paths]
            self.links = links.folders
            sizes: list[int | None] = [size for size, _ in found]
            self._identities: list[Hashable] = [identity for _, identity in found]
        else:
            with reaching(root, CURE):
                sizes = _sizes(self.filesystem, folder, paths, lists_folders={"http", "https"}.isdisjoint(protocols_of(root)))
            self._identities = [(self.filesystem, path) for path in paths]
        missing = [row for (row, _), size in zip(rows, sizes, strict=True) if size is None]
        if missing:
            more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
            raise DatasetError(f"{place}, line {missing[0].line}: there is no file {missing[0].file} in {root}{more}. {CURE}")
        digest = hashlib.sha256()
        for name, size, (_, label) in zip(names, sizes, rows, strict=True):
            digest.update(f"{name}\0{size}\0{label}\0".encode("utf-8", "surrogateescape"))
        self.key = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def by_identity(self) -> dict[Hashable, str]:
        """Where the file system finds each file, by what tells it from others (``file_identity``)."""
        return {identity: path for identity, (path, _) in zip(self._identities, self._files, strict=True)}

    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        return (EncodedImage(*self._files[file]) for file in files_F)


def _relative(row: ListedFile, starts: tuple[str, ...], place: str) -> str:
    """A file's path below the folder, which its name may start with."""
    name = row.file
    for start in starts:
        name = name.removeprefix(start) if start else name
    plain = posixpath.normpath(name)
    if "://" in name or plain.startswith(("/", "../")) or plain in (".", ".."):
        raise DatasetError(
            f"{place}, line {row.line}: {row.file} does not lie in {starts[0]}. Set root to a folder in which all files lie."
        )
    return plain


def _check_different(names: list[str], rows: list[tuple[ListedFile, int]], place: str) -> None:
    line_of: dict[str, int] = {}
    for name, (row, _) in zip(names, rows, strict=True):
        if name in line_of:
            raise DatasetError(f"{place}, line {row.line}: {row.file} is listed in line {line_of[name]} too. Remove one of them.")
        line_of[name] = row.line


def _local(path: str, links: LinksOut) -> tuple[int | None, Hashable]:
    """Size and identity of a file; None for one that is not there."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None, None
    links.follow_file(path)
    return status.st_size, local_identity(path, status)


def _sizes(filesystem: Any, folder: str, paths: list[str], lists_folders: bool) -> list[int | None]:
    """The size of each file; None for one that is not there."""
    if lists_folders and len(paths) > FEW:
        found = filesystem.find(folder, detail=True)
        return [found[path]["size"] if path in found else None for path in paths]
    sizes: list[int | None] = []
    for start in range(0, len(paths), FEW):
        some = paths[start : start + FEW]
        try:
            sizes += filesystem.sizes(some)
        except FileNotFoundError as error:
            if unreachable(error) is not None:
                raise
            # The error need not say which file it is about.
            sizes += [filesystem.size(path) if filesystem.exists(path) else None for path in some]
    return sizes
