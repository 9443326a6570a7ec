"""Writing local files whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path, *, private: bool = False) -> Iterator[Path]:
    """An empty file beside ``target``, for the caller to fill: it replaces the target on success and is removed on failure.

    Missing folders are made. A target that is a link is itself replaced, not the file that it points to. The new file has the
    permissions that the umask leaves, whatever the old one had; if ``private``, only this user may read and write it.

    Raises:
        OSError: the folder or the file cannot be made, or the target is a folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".rarkit-{secrets.token_hex(8)}"
    # Creates the file or fails: a link that somebody planted under this name is not followed.
    temporary.touch(0o600 if private else 0o666, exist_ok=False)
    permissions = temporary.stat().st_mode
    try:
        yield temporary
        # The caller's library may have made the file anew, with other permissions (safetensors: for the owner alone).
        temporary.chmod(permissions)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Writes a file in UTF-8 as ``replacing`` does. In names of files that are not UTF-8, what is not is escaped."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_once(target: Path, text: str) -> bool:
    """Writes a file in UTF-8 unless there is one; returns whether it was written.

    Of several processes that try at the same time, one succeeds. Where there are hard links, nobody reads half of the file.

    Raises:
        OSError: the file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.parent / f".rarkit-{secrets.token_hex(8)}"
    written.write_text(text, encoding="utf-8")
    try:
        # Unlike a rename, a link fails if somebody else was faster.
        os.link(written, target)
    except FileExistsError:
        return False
    except OSError:
        # File systems without hard links.
        try:
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
    finally:
        written.unlink(missing_ok=True)
    return True
