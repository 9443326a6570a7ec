"""The files in a tar archive, whatever its headers claim: nothing is read, or skipped, because it is said to be there."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Literal, Self, final

LARGEST_HEADER = 2**20
"""Bytes of an extended header, which holds names and the like, and is read into memory."""
EXPANSION, SMALL = 100, 2**26
"""A compressed archive holds at most so many times its size, or so many bytes, whichever is more."""
_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_MORE_PIECES = 482
"""The byte of a sparse file's header that tells whether more headers list its pieces."""


@final
class _Header(tarfile.TarInfo):
    """A header that is refused before what it announces is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"an extended header of {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE and buf[_MORE_PIECES]:
            raise tarfile.ReadError("a sparse file in many pieces")
        return header

    def _list_no_pieces(self, *_: Any) -> None:
        """In place of what reads the pieces of a sparse file into memory, however many there are."""

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _list_no_pieces


def members(stream: IO[bytes], mode: Literal["r:*", "r|*"]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of an archive, each with the archive, from which it can be extracted until the next is taken.

    Args:
        stream: the archive, compressed or not.
        mode: whether it may seek (``r:*``) or reads on.

    Raises:
        tarfile.TarError: it is damaged, or claims to hold more than it can.
    """
    size = _size(stream)
    with tarfile.open(fileobj=_decompressed(stream) if mode == "r|*" else stream, mode=mode, tarinfo=_Header) as archive:
        for member in archive:
            # Where the next one begins: tarfile goes there next.
            if size is not None and archive.offset > max(SMALL, EXPANSION * size):
                raise tarfile.ReadError(f"{member.name[:100]!r} ends at byte {archive.offset:,}, in a file of {size:,}")
            yield archive, member
            # Otherwise all members are kept; nothing goes back to them.
            archive.members = []  # type: ignore[attr-defined]


def walk(stream: IO[bytes]) -> None:
    """Goes through an archive, which may seek, to its end. Raises tarfile.TarError as ``members`` does."""
    for _ in members(stream, "r:*"):
        pass


@final
class _Rejoined(io.RawIOBase):
    """A stream that cannot go back, after its beginning was read."""

    def __init__(self, beginning: bytes, stream: IO[bytes]) -> None:
        self._beginning, self._stream = beginning, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._beginning[: len(buffer)] or self._stream.read(len(buffer))
        self._beginning = self._beginning[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _decompressed(stream: IO[bytes]) -> IO[bytes]:
    """The stream, decompressed piece by piece. By itself, tarfile expands ten kilobytes at once, whatever they become."""
    beginning = stream.read(6)
    whole = io.BufferedReader(_Rejoined(beginning, stream))
    if beginning.startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(fileobj=whole))
    if beginning.startswith(b"BZh"):
        return bz2.BZ2File(whole)
    return lzma.LZMAFile(whole) if beginning.startswith((b"\xfd7zXZ", b"]\x00\x00")) else whole


def is_sparse(member: tarfile.TarInfo) -> bool:
    """Whether a file is mostly a claim of zeros."""
    return member.issparse() or any(key.startswith("GNU.sparse.") for key in member.pax_headers)


def _size(stream: IO[bytes]) -> int | None:
    """The bytes of a stream, if it tells."""
    size: int | None = getattr(stream, "size", None)
    if size is None:
        try:
            size = os.fstat(stream.fileno()).st_size
        except (AttributeError, OSError):  # not a file of this machine
            return None
    return size
