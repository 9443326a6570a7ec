"""Lists the images in a folder and its folders, and what is passed over there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, final

from fsspec.implementations.local import LocalFileSystem

from rarkit.datasets.links import LinksOut
from rarkit.datasets.notices import NAMED, some_of
from rarkit.errors import DatasetError
from rarkit.files.identities import local_identity
from rarkit.files.locations import filesystem_of, in_this_process_alone, reaching

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MOST_OTHERS = 10**6
"""Other files and folders after which a folder with fewer images so far is taken for a wrong one, such as a whole disk."""
DEEPEST = 64
"""How deep folders may lie in each other; they are read by recursion."""
SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "#snapshot", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)
"""Folders that systems leave among the user's; some hold thumbnails, others cannot be read."""


@final
@dataclass(frozen=True)
class ImageFile:
    """An image: where its file system finds it, its path below the listed folder, its size in bytes, and its identity."""

    path: str
    relative: str
    size: int
    identity: Hashable
    """As ``file_identity`` tells it from others of its file system."""


@final
@dataclass
class Listing:
    """What lies in a folder."""

    place: str
    filesystem: Any
    by_folder: dict[str, list[ImageFile]] = field(default_factory=dict)
    """The images in each folder and its subfolders, folders and images sorted by name; folders without images are left out."""
    loose: list[ImageFile] = field(default_factory=list)
    """The images that lie in no folder, sorted."""
    passed_folders: list[str] = field(default_factory=list)
    """Folders without images, and those of the system, sorted."""
    passed_files: int = 0
    """Number of other files."""
    some_files: list[str] = field(default_factory=list)
    """The first few of them."""
    links_out: Counter[str] = field(default_factory=Counter)
    """How many links lead out of the data's folder, by the folder to which they lead."""

    @property
    def portable(self) -> bool:
        """Whether other processes see the same files."""
        return not in_this_process_alone(self.place)

    def passed_over(self, loose: bool = True) -> str:
        """What was passed over, counted and with a few names; empty if nothing was.

        ``loose``: whether images that lie in no folder are passed over where others lie in folders.
        """
        folders, files = len(self.passed_folders), self.passed_files
        parts = []
        if folders:
            plural = "s" if folders > 1 else ""
            parts.append(f"{folders:,} folder{plural} without images ({some_of(self.passed_folders)})")
        if files:
            plural = "s that are not images" if files > 1 else " that is not an image"
            parts.append(f"{files:,} file{plural} ({some_of(self.some_files, files)})")
        if loose and self.by_folder and self.loose:
            names = [image.relative for image in self.loose]
            plural = "s that lie" if len(names) > 1 else " that lies"
            parts.append(f"{len(names):,} image{plural} in no folder ({some_of(names)})")
        return ", ".join(parts)


def listed(place: str, cure: str, data: str | None = None) -> Listing:
    """Lists a folder. Names that start with a dot are not even mentioned.

    Args:
        place: the folder.
        cure: the end of messages.
        data: the folder of all the data, in which it lies; links that lead out of that are counted.

    Raises:
        DatasetError: there is no such folder, it cannot be read, or a link in it has no end.
    """
    filesystem, root = filesystem_of(place)
    listing = Listing(place, filesystem)
    folders, passed = set(), set()
    images = others = 0
    with reaching(place, cure):
        is_local = isinstance(filesystem, LocalFileSystem)
        for image in _local_below(root, place if data is None else data, listing) if is_local else _remote(filesystem, root):
            *steps, name = image.relative.split("/")
            images, others = images + _is_image(name), others + (not _is_image(name))
            if others > max(MOST_OTHERS, images):
                raise DatasetError(
                    f"{place} has more than {MOST_OTHERS:,} files and folders that are no images, and {images:,} images. Name the "
                    "folder of the images."
                )
            if len(steps) > DEEPEST:
                raise DatasetError(
                    f"{place} has folders that lie more than {DEEPEST} deep in each other, as …{image.relative[-80:]}. Name the "
                    "folder of the images."
                )
            folders.update(steps[:1])
            aside = next((depth for depth, step in enumerate(steps) if step.startswith(".") or step in SYSTEM_FOLDERS), None)
            if aside is not None:
                passed.add("/".join(steps[: aside + 1]))
            elif not name or name.startswith("."):
                continue
            elif not _is_image(name):
                listing.passed_files += 1
                listing.some_files = sorted([*listing.some_files, image.relative])[:NAMED]
            elif steps:
                listing.by_folder.setdefault(steps[0], []).append(image)
            else:
                listing.loose.append(image)
    listing.by_folder = {name: sorted(listing.by_folder[name], key=_by_path) for name in sorted(listing.by_folder)}
    listing.loose.sort(key=_by_path)
    without = passed | (folders - set(listing.by_folder))
    listing.passed_folders = sorted(folder for folder in without if not folder.rsplit("/", 1)[-1].startswith("."))
    return listing


def _by_path(image: ImageFile) -> str:
    return image.path


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _local_below(root: str, data: str, listing: Listing) -> Iterator[ImageFile]:
    links = LinksOut(filesystem_of(data)[1])
    real = links.follow_folder(root, ())
    yield from _local(root, "", links, (real,))
    listing.links_out = links.folders


def _local(root: str, below: str, links: LinksOut, above: tuple[str, ...]) -> Iterator[ImageFile]:
    """Files, and folders with a slash at their end. Looks into no folder of the system: some may not be read.

    ``above``: the real folders of ``root`` and of what lies between it and ``below``.
    """
    with os.scandir(os.path.join(root, below)) as entries:
        for entry in entries:
            relative = f"{below}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield ImageFile(entry.path, f"{relative}/", 0, None)
                if entry.name not in SYSTEM_FOLDERS:
                    real = links.follow_folder(entry.path, above) if entry.is_symlink() else os.path.join(above[-1], entry.name)
                    yield from _local(root, f"{relative}/", links, (*above, real))
                continue
            is_image = _is_image(entry.name)
            if is_image and entry.is_symlink():
                links.follow_file(entry.path)
            status = entry.stat() if is_image else None
            size, identity = (0, None) if status is None else (status.st_size, local_identity(entry.path, status))
            yield ImageFile(entry.path, relative, size, identity)


def _remote(filesystem: Any, root: str) -> Iterator[ImageFile]:
    """Files alone. Object stores may list a folder as an entry of its own."""
    root = root.rstrip("/")
    files = filesystem.find(root, detail=True)
    if not files:
        filesystem.ls(root)  # raises if there is nothing there
    for path, entry in files.items():
        if path == root:
            raise NotADirectoryError(f"{path} is a file")
        yield ImageFile(path, path[len(root) :].removeprefix("/"), entry["size"] or 0, path)
