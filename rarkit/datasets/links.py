"""Links in a folder of data. They are followed; those that lead out of it are counted, by where they lead."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import final

from rarkit.datasets.notices import NAMED
from rarkit.errors import DatasetError

MOST_VISITS = 100
"""How often one folder may be reached through links: a few folders that link to each other have any number of paths."""
_LONGEST_CHAIN = 40


@final
class LinksOut:
    """Follows the links in a folder, and counts those that lead out of it."""

    def __init__(self, root: str) -> None:
        """``root``: a local folder."""
        self._inside = [os.path.realpath(root)]
        self._real_folders: dict[str, str] = {}
        self._visits: Counter[str] = Counter()
        self.folders: Counter[str] = Counter()
        """How many lead out, by the folder to which they lead, or in which the file lies."""

    def follow_file(self, path: str) -> None:
        """Counts a link to a file, if it leads out."""
        target = os.path.dirname(self._real(path))
        if not self._is_inside(target):
            self.folders[target] += 1

    def follow_folder(self, path: str, above: tuple[str, ...]) -> str:
        """Counts a link to a folder, if it leads out; what lies in that folder counts as inside from then on.

        Args:
            path: the link.
            above: the real folders that lie above it.

        Returns:
            The real folder.

        Raises:
            DatasetError: the link has no end, or the folder is reached through too many links.
        """
        target = self._real(path)
        if any(_lies_in(folder, target) for folder in above):
            raise DatasetError(f"{path} is a link to {target}, in which it lies itself: it has no end. Remove it.")
        self._visits[target] += 1
        if self._visits[target] > MOST_VISITS:
            raise DatasetError(f"{target} is reached through more than {MOST_VISITS} links, the last of them {path}. Remove some.")
        if not self._is_inside(target):
            self.folders[target] += 1
            self._inside.append(target)
        return target

    def _is_inside(self, folder: str) -> bool:
        return any(_lies_in(folder, inside) for inside in self._inside)

    def _real(self, path: str) -> str:
        """As ``os.path.realpath``, but each folder is resolved once: a data set may have a million links."""
        for _ in range(_LONGEST_CHAIN):
            folder, name = os.path.split(path)
            if name in ("", os.curdir, os.pardir):
                return os.path.realpath(path)
            if folder not in self._real_folders:
                self._real_folders[folder] = os.path.realpath(folder)
            path = os.path.join(self._real_folders[folder], name)
            if not os.path.islink(path):
                break
            path = os.path.join(self._real_folders[folder], os.readlink(path))
        return path


def _lies_in(folder: str, other: str) -> bool:
    return folder == other or folder.startswith(other.rstrip(os.sep) + os.sep)


def folded(folders: Mapping[str, int]) -> dict[str, int]:
    """Counts by folder, by their common parents where there are many folders; the largest counts first."""
    paths = {folder: folder.strip(os.sep).split(os.sep) for folder in folders}
    kept: Counter[str] = Counter()
    for depth in range(max(map(len, paths.values()), default=0), 0, -1):
        kept = Counter()
        for folder, count in folders.items():
            kept[os.sep + os.sep.join(paths[folder][:depth])] += count
        if len(kept) <= NAMED:
            break
    return dict(kept.most_common())


def sentence(folders: Mapping[str, int]) -> str:
    """How many links lead out of the data, and where to; empty if none does."""
    if not folders:
        return ""
    parts = [f"{count:,} to {folder}" for folder, count in folders.items()]
    more = sum(list(folders.values())[NAMED:])
    where = ", ".join(parts[:NAMED]) + (f", {more:,} elsewhere" if more else "")
    count = sum(folders.values())
    links = f"{count:,} links lead" if count > 1 else "1 link leads"
    return f"{links} out of the data's folder: {where}."
