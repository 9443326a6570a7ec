"""Files in the safetensors format that are written tensor by tensor, and read in part; the library writes only what memory holds.

A file holds whole tensors under their names, and pieces of tensors under names with the place of the piece, as Python slices it:
``blocks.0.weight[64:128,0:32]`` are rows 64 to 127 of ``blocks.0.weight``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from pydantic import BaseModel, ConfigDict, Field, RootModel

from rarkit.cache.record import Size
from rarkit.files.stored_json import parsed
from rarkit.files.weight_bounds import LARGEST_HEADER

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types of numbers that the format has, under its names."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MOST_AXES, LONGEST_NAME = 8, 500
_LENGTH_BYTES = 8
_RANGE = r"(?:0|[1-9]\d{0,18}):(?:0|[1-9]\d{0,18})"
_KEY = re.compile(rf"([^\[\]\x00-\x1f\x7f]{{1,{LONGEST_NAME}}})(?:\[({_RANGE}(?:,{_RANGE}){{0,{MOST_AXES - 1}}})\])?")


@final
@dataclass(frozen=True)
class Piece:
    """A tensor, or a box in it."""

    name: str
    dtype: torch.dtype
    offsets: tuple[int, ...]
    """Where the box begins in the tensor, by axis."""
    shape: tuple[int, ...]
    is_whole: bool
    """Whether it is all of the tensor."""
    start: int = 0
    """Byte of the file at which its numbers begin, row-major and little-endian."""

    @property
    def key(self) -> str:
        """Its name in the file."""
        places = ",".join(f"{begin}:{begin + size}" for begin, size in zip(self.offsets, self.shape, strict=True))
        return self.name if self.is_whole else f"{self.name}[{places}]"

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


@final
class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)

    dtype: Literal[tuple(DTYPES)]  # type: ignore[valid-type]
    shape: Annotated[tuple[Size, ...], Field(max_length=MOST_AXES)]
    data_offsets: tuple[Size, Size]


@final
class _Header(RootModel[dict[str, _Entry]]):
    model_config = ConfigDict(strict=True)


def ordered(pieces: Iterable[Piece]) -> list[Piece]:
    """The order of pieces in a file: wide numbers first, so that each lies at a multiple of its width; then by name."""
    return sorted(pieces, key=lambda piece: (-piece.dtype.itemsize, piece.key))


def header(pieces: Sequence[Piece]) -> bytes:
    """What stands before the numbers of these pieces, which follow in that order.

    Raises:
        ValueError: two pieces have one name, or a name cannot be read again.
    """
    entries, begin = {}, 0
    for piece in pieces:
        found = _KEY.fullmatch(piece.key)
        if found is None or found[1] != piece.name or len(piece.shape) > MOST_AXES:
            raise ValueError(f"{piece.key[:100]!r} is no name of a tensor in a checkpoint")
        offsets = begin, begin + piece.nbytes
        entries[piece.key] = {"dtype": NAMES[piece.dtype], "shape": list(piece.shape), "data_offsets": list(offsets)}
        begin = offsets[1]
    if len(entries) != len(pieces):
        raise ValueError("two tensors of a checkpoint have one name")
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    if len(text) > LARGEST_HEADER:
        raise ValueError(f"a header of {len(text):,} bytes is larger than {LARGEST_HEADER:,}")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_header(read: Callable[[int, int], bytes], size: int) -> list[Piece]:
    """The pieces of a file, believed only as far as they fit into it.

    Args:
        read: reads from a first to an end byte.
        size: bytes of the file.

    Raises:
        ValueError: the header is damaged, or claims what the file has not. The message is a few words.
    """
    if size < _LENGTH_BYTES:
        raise ValueError("it has no header")
    length = int.from_bytes(read(0, _LENGTH_BYTES), "little")
    if length > min(LARGEST_HEADER, size - _LENGTH_BYTES):
        raise ValueError(f"its header claims {length:,} bytes")
    begin = data = _LENGTH_BYTES + length
    pieces = []
    entries = parsed(_Header, read(_LENGTH_BYTES, data), LARGEST_HEADER).root
    for key, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        piece = _piece(key, entry, begin)
        if entry.data_offsets != (begin - data, begin - data + piece.nbytes):
            raise ValueError(
                f"tensor {key[:100]!r} does not begin where the one before it ends, or has another size than its shape"
            )
        begin += piece.nbytes
        pieces.append(piece)
    if begin != size:
        raise ValueError(f"its tensors take {begin - data:,} of {size - data:,} bytes")
    return pieces


def _piece(key: str, entry: _Entry, start: int) -> Piece:
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{key[:100]!r} is no name of a tensor")
    name, places = found.groups()
    dtype, shape = DTYPES[entry.dtype], entry.shape
    if places is None:
        return Piece(name, dtype, (0,) * len(shape), shape, True, start)
    ends = [tuple(map(int, place.split(":"))) for place in places.split(",")]
    if tuple(end - begin for begin, end in ends) != shape:
        raise ValueError(f"tensor {key[:100]!r} has not the shape that its name says")
    return Piece(name, dtype, tuple(begin for begin, _ in ends), shape, False, start)


def whole_shape(pieces: Sequence[Piece]) -> tuple[int, ...]:
    """The shape of the tensor that pieces of one name make up: boxes between cuts through all of it, as shards are.

    Raises:
        ValueError: they overlap, leave something out, or are of different types.
    """
    first, what = pieces[0], ascii(pieces[0].name[:100])
    if any((piece.dtype, len(piece.shape)) != (first.dtype, len(first.shape)) for piece in pieces):
        raise ValueError(f"the pieces of tensor {what} are of different types")
    if first.is_whole and len(pieces) == 1:
        return first.shape
    if any(piece.is_whole or 0 in piece.shape for piece in pieces):
        raise ValueError(f"tensor {what} is there more than once")
    cuts = []
    for axis in range(len(first.shape)):
        begins = sorted({piece.offsets[axis] for piece in pieces})
        end = max(piece.offsets[axis] + piece.shape[axis] for piece in pieces)
        cuts.append(dict(zip(begins, [*begins[1:], end], strict=True)))
    complete = all(min(cut) == 0 for cut in cuts) and math.prod(map(len, cuts)) == len(pieces)
    distinct = len({piece.offsets for piece in pieces}) == len(pieces)
    fitting = all(
        cut[begin] == begin + size for piece in pieces for cut, begin, size in zip(cuts, piece.offsets, piece.shape, strict=True)
    )
    if not (complete and distinct and fitting):
        raise ValueError(f"the pieces of tensor {what} do not make up all of it")
    return tuple(max(cut.values()) for cut in cuts)


def tensors_of(files: Mapping[str, Sequence[Piece]]) -> dict[str, list[tuple[str, Piece]]]:
    """The pieces of each tensor, with the file that each is in, from the pieces of each file."""
    found: dict[str, list[tuple[str, Piece]]] = {}
    for file, pieces in files.items():
        for piece in pieces:
            found.setdefault(piece.name, []).append((file, piece))
    return found
