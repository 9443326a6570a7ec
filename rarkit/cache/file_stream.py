"""A file of an output that is written in portions, because it is too large to be held in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import BinaryIO, final

from fsspec import AbstractFileSystem

from rarkit.errors import StoreError
from rarkit.files.atomic import Bytes, rewriting
from rarkit.files.locations import reaching
from rarkit.files.own_folder import OwnFolder

PORTION_BYTES = 2**22
"""What is hashed and written at once."""


@final
class FileStream:
    """A file that is being written, with the size and digest of what has been written so far."""

    def __init__(self, file: BinaryIO, changing: Callable[[], AbstractContextManager[None]]) -> None:
        """``changing``: entered around each ``write``, to check the permission to write and to name the place in errors."""
        self._file, self._changing = file, changing
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of what has been written, in hex."""
        return self._hash.hexdigest()

    def write(self, data: Bytes) -> None:
        """Appends bytes. Raises StoreError if that cannot be done, and LockLostError if it may no longer be done."""
        view = memoryview(data).cast("B")
        with self._changing():
            for start in range(0, len(view), PORTION_BYTES):
                portion = view[start : start + PORTION_BYTES]
                self._hash.update(portion)
                self._file.write(portion)
        self.size += len(view)


@contextmanager
def streaming(
    filesystem: AbstractFileSystem,
    path: str,
    changing: Callable[[], AbstractContextManager[None]],
    call: Callable[..., None],
) -> Iterator[FileStream]:
    """A file that is there once all of it is written. One for another machine is written to local scratch, and then sent.

    Args:
        filesystem, path: where it lies, in a folder that may have to be made.
        changing: entered around whatever changes the file system.
        call: calls a method of the file system by its name.
    """
    with ExitStack() as stack:
        if isinstance(filesystem, OwnFolder):
            with changing():
                file = stack.enter_context(filesystem.rewriting(path))
            yield FileStream(file, changing)
            with changing():
                stack.close()
            return
        with _in_scratch():
            copy = f"{stack.enter_context(tempfile.TemporaryDirectory(prefix='rarkit-'))}/file"
            writing = stack.enter_context(ExitStack())
            file = writing.enter_context(rewriting(copy, private=True))
        yield FileStream(file, _in_scratch)
        with _in_scratch():
            writing.close()
        with changing():
            call("makedirs", path.rpartition("/")[0], True)
            call("put_file", copy, path)


def _in_scratch() -> AbstractContextManager[None]:
    return reaching(tempfile.gettempdir(), "Name a folder with room for a checkpoint in TMPDIR.", raising=StoreError)
