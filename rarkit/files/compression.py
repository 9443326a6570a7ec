"""Compressed files, read as long as they expand to what data do that somebody made: no file says how large it becomes."""

from __future__ import annotations

import io
from typing import Any, final

import fsspec.compression

from rarkit.errors import UserError
from rarkit.files import archives

BUFFER = 2**16
"""Bytes that are read at a time."""


def expanded(file: Any, compression: str, place: str, raising: type[UserError]) -> io.BufferedReader:
    """What is in a compressed file.

    Reading raises ``raising`` when far more has come out than went in, with the bounds of ``archives``; and besides whatever the
    decompressor and the file system raise.

    Args:
        file: the file, open for reading bytes.
        compression: as fsspec calls it.
        place: where it is, for messages.
        raising: the error.
    """
    counted = _Counted(file)
    layer = fsspec.compression.compr[compression](io.BufferedReader(counted, BUFFER), mode="rb")
    return io.BufferedReader(_Bounded(layer, counted, place, raising), BUFFER)


@final
class _Counted(io.RawIOBase):
    """A file that counts the bytes which were read of it."""

    def __init__(self, file: Any) -> None:
        self.file, self.count = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


@final
class _Bounded(io.RawIOBase):
    """What a decompressor gives, for as long as it is no more than ``MOST_EXPANSION`` times what it took."""

    def __init__(self, layer: Any, taken: _Counted, place: str, raising: type[UserError]) -> None:
        self.layer, self.taken, self.place, self.raising = layer, taken, place, raising
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.layer.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        if self.count > max(archives.LARGEST_UNSEEN, archives.MOST_EXPANSION * self.taken.count):
            raise self.raising(
                f"{self.place} expands from {self.taken.count:,} bytes to more than {self.count:,}, which no data do that rarkit "
                "reads. Decompress it, and name the file, if it is what you want."
            )
        return len(data)
