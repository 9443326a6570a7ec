"""One writer per stage output: a lock file with its holder's host, process and heartbeat."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec import AbstractFileSystem

from rarkit.errors import LockedError, StoreError

FORMAT = 2
"""The format of the lock files that this rarkit writes. Format 1 had no number and the same contents otherwise."""
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


@contextmanager
def lock(filesystem: AbstractFileSystem, path: str, what: str) -> Iterator[None]:
    """Holds a lock file while the body runs, renewing its heartbeat from a thread.

    A lock is taken over when its holder is a process of this host that is gone, or when its heartbeat is a minute old; never
    when a newer rarkit wrote it, since what is in it may mean something else.

    Args:
        filesystem: where the lock file lies.
        path: the lock file.
        what: what is locked, for messages.

    Raises:
        LockedError: another process holds it; the message names host and process.
        StoreError: the lock cannot be written.
    """
    token = uuid.uuid4().hex
    _acquire(filesystem, path, token, what)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(filesystem, path, token, stop), name="rarkit-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _holder(filesystem, path).get("token") == token:
            filesystem.rm_file(path)


def _acquire(filesystem: AbstractFileSystem, path: str, token: str, what: str) -> None:
    for _ in range(3):
        try:
            filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            with filesystem.open(path, "xb") as file:
                file.write(_contents(token))
        except FileExistsError:
            holder = _holder(filesystem, path)
            if not _stale(holder):
                raise LockedError(_refusal(holder, path, what)) from None
            if filesystem.exists(path):
                filesystem.rm_file(path)
        except Exception as error:
            # Filesystems have exceptions of their own (botocore's are no OSErrors).
            raise StoreError(f"{what} cannot be locked at {path}: {error}. Check the store's permissions.") from error
        else:
            if _holder(filesystem, path).get("token") == token:
                return
    raise LockedError(f"{what}: several processes are taking the lock {path} from each other. Start one of them again.")


def _contents(token: str) -> bytes:
    holder = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time()}
    return json.dumps({"format": FORMAT, **holder}).encode()


def _refusal(holder: dict[str, Any], path: str, what: str) -> str:
    if _is_newer(holder):
        return (
            f"{what} is locked by a newer rarkit ({path} has format {holder['format']}, this one knows {FORMAT}). Wait for it; if "
            "nothing is writing there any more, delete that file."
        )
    return (
        f"{what} is being written by process {holder.get('pid')} on {holder.get('host')}. Wait for it; if it is gone, the lock "
        f"expires within {STALE_SECONDS:.0f} s."
    )


def _holder(filesystem: AbstractFileSystem, path: str) -> dict[str, Any]:
    """The contents of the lock; empty if it is gone or only half-written."""
    try:
        return dict(json.loads(filesystem.cat_file(path)))
    except (FileNotFoundError, ValueError):
        return {}


def _stale(holder: dict[str, Any]) -> bool:
    if not holder:
        return True
    if _is_newer(holder):
        return False
    if holder["host"] == socket.gethostname() and not _alive(int(holder["pid"])):
        return True
    return time.time() - float(holder["heartbeat"]) > STALE_SECONDS


def _is_newer(holder: dict[str, Any]) -> bool:
    return int(holder.get("format", 1)) > FORMAT


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beat(filesystem: AbstractFileSystem, path: str, token: str, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        if _holder(filesystem, path).get("token") != token:
            return
        filesystem.pipe_file(path, _contents(token))
