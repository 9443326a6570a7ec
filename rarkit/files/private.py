"""Who else may change what lies at a path. What is loaded as code must be where nobody else can put theirs."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Collection
from pathlib import Path

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
MOST_LINKS = 40
"""Symbolic links on one way, as in Linux."""


def not_private(path: str | Path, also_trusted: Collection[int] = ()) -> str | None:
    """Why somebody else may change or replace what lies at a path, such as ``"/shared is writable by others"``, or None.

    As for ssh (StrictModes), all that is on the way counts, links and their targets too: it belongs to this user or to root, and
    neither a group nor others may write to it. A folder on the way may be open to all if it is sticky, as /tmp is: its entries are
    replaced by their owners alone. Groups with a single member count as groups, since members cannot be listed reliably. Access
    lists show in the mode, which has their mask in place of the group's permissions.

    Always None on systems without such owners (Windows).

    Args:
        path: what exists.
        also_trusted: further user ids that may own what is on the way.

    Raises:
        OSError: something on the way is not there, or cannot be looked at.
    """
    if not hasattr(os, "geteuid"):
        return None
    owners = {0, os.geteuid(), *also_trusted}
    here, ahead, links = Path("/"), deque(_names(os.path.join(os.getcwd(), path))), 0
    reason = _writable(here, os.lstat(here), owners, on_the_way=bool(ahead))
    while ahead and reason is None:
        name = ahead.popleft()
        if name == "..":
            here = here.parent
            continue
        entry = here / name
        about = os.lstat(entry)
        if stat.S_ISLNK(about.st_mode):
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = os.readlink(entry)
            here = Path("/") if target.startswith("/") else here
            ahead.extendleft(reversed(_names(target)))
            reason = _of_another(entry, about, owners)
        else:
            here = entry
            reason = _writable(entry, about, owners, on_the_way=bool(ahead))
    return reason


def not_private_inside(folder: str | Path) -> str | None:
    """``not_private`` of a folder and all that is in it. Modes do not count in a folder that nobody else can enter."""
    reason = not_private(folder)
    if reason is not None or not hasattr(os, "geteuid"):
        return reason
    owners = {0, os.geteuid()}
    is_shut = not os.stat(folder).st_mode & (stat.S_IXGRP | stat.S_IXOTH)
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(top, name)
            try:
                about = os.lstat(entry)
            except FileNotFoundError:  # removed by another process of this user
                continue
            ours_alone = is_shut or stat.S_ISLNK(about.st_mode)
            reason = _of_another(entry, about, owners) if ours_alone else _writable(entry, about, owners, on_the_way=False)
            if reason is not None:
                return reason
    return None


def make_private(folder: Path) -> None:
    """Makes a folder, and the missing ones above it, for this user alone. One that is there stays as it is.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    for each in (*reversed(folder.parents), folder):
        try:
            each.mkdir(mode=0o700)
        except OSError:
            if not each.is_dir():
                raise


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _of_another(entry: Path, about: os.stat_result, owners: Collection[int]) -> str | None:
    return None if about.st_uid in owners else f"{entry} belongs to another user ({about.st_uid})"


def _writable(entry: Path, about: os.stat_result, owners: Collection[int], *, on_the_way: bool) -> str | None:
    is_sticky = on_the_way and bool(about.st_mode & stat.S_ISVTX)
    if about.st_mode & OTHERS_MAY_WRITE and not is_sticky:
        return f"{entry} is writable by {'others' if about.st_mode & stat.S_IWOTH else 'its group'}"
    return _of_another(entry, about, owners)
