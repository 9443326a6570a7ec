"""Writing local files: the only place that opens one for writing. Files are written whole or not at all, and through no link.

Temporary names are random and created exclusively, so that nobody can plant a link there. A link, or a file that has several
names, in the place of what is written is itself replaced; what it leads to stays as it is.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

Bytes = bytes | memoryview


def created(path: str | Path, *, folder: int | None = None, private: bool = False) -> BinaryIO:
    """A new file, open for writing in binary.

    Args:
        path: where it is made.
        folder: the descriptor of the folder that ``path`` is relative to; None for the working folder.
        private: whether only this user may read and write it; otherwise it has the permissions that the umask leaves.

    Raises:
        FileExistsError: something has that name, be it a link to nothing.
        OSError: the file cannot be made.
    """
    mode = 0o600 if private else 0o666
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=folder), "wb")


@contextmanager
def rewriting(target: str | Path, *, folder: int | None = None, private: bool = False) -> Iterator[BinaryIO]:
    """A new file, open for writing: it replaces the target on success and is removed on failure.

    Its permissions do not depend on those of the old file. ``private`` and ``folder`` are as of ``created``; ``folder`` is the one
    that the target is in.

    Raises:
        OSError: the folder of the target (which is made if it is missing) or the file cannot be made, or the target is a folder.
    """
    place, _ = os.path.split(target)
    if folder is None and place:
        os.makedirs(place, exist_ok=True)
    temporary = os.path.join(place, _unguessable())
    file = created(temporary, folder=folder, private=private)
    try:
        try:
            yield file
        except BaseException:
            # What is still buffered goes with the file. That it cannot be written must not hide what went wrong: on a full disk, it
            # is the second failure.
            with suppress(OSError):
                file.close()
            raise
        file.close()
        os.replace(temporary, target, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """As ``rewriting``, for what opens the file itself: an empty file beside ``target``, for the caller to fill."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / _unguessable()
    created(temporary).close()
    permissions = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        # The caller's library may have made the file anew, with other permissions (safetensors: for the owner alone).
        temporary.chmod(permissions)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: str | Path, data: Bytes, *, folder: int | None = None, private: bool = False) -> None:
    """Writes a file as ``rewriting`` does."""
    with rewriting(target, folder=folder, private=private) as file:
        file.write(data)


def write_text(target: Path, text: str) -> None:
    """Writes a file in UTF-8 as ``rewriting`` does. In names of files that are not UTF-8, what is not is escaped."""
    write_bytes(target, text.encode(errors="backslashreplace"))


def write_once(target: Path, text: str) -> bool:
    """Writes a file in UTF-8 unless there is one; returns whether it was written.

    Of several processes that try at the same time, one succeeds. Where there are hard links, nobody reads half of the file.

    Raises:
        OSError: the file cannot be written, or a link lies in its place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / _unguessable()
    with created(temporary) as file:
        file.write(text.encode())
    try:
        # Unlike a rename, a link fails if somebody else was faster.
        os.link(temporary, target)
    except FileExistsError:
        return _was_written(target)
    except OSError:
        # File systems without hard links.
        try:
            with created(target) as file:
                file.write(text.encode())
        except FileExistsError:
            return _was_written(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _was_written(target: Path) -> bool:
    if target.is_symlink():
        raise OSError(errno.ELOOP, "a link lies in the place of a file, remove it", str(target))
    return False


def started(target: Path) -> BinaryIO:
    """A file to be read while it grows, such as a log: new, empty, and in the place of what has its name.

    Raises:
        OSError: it cannot be made, or somebody makes a file of that name at the same time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    return created(target)


def overwrite(path: str | Path, data: Bytes, *, folder: int | None = None) -> None:
    """Writes over a file in place: a full disk or a kill leaves the old content or the new, if they are of a few bytes.

    Args:
        path: the file.
        data: its new content.
        folder: as of ``created``.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be written, is no regular file, or has other names too, under which it may be somebody's.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "r+b", buffering=0) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            raise OSError(errno.EINVAL, "no file of its own", str(path))
        file.write(data)
        file.truncate()


def _unguessable() -> str:
    return f".rarkit-{secrets.token_hex(8)}"
