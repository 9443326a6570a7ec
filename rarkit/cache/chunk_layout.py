"""How an array lies in its chunk files, and which of them are there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

CHECKSUM_BYTES = 4
SMALLEST_BLOCK_ROWS, LARGEST_BLOCK_BYTES, BLOCKS = 256, 16 * 2**20, 64


def rows_per_block(count: int, row_bytes: int) -> int:
    """Rows of a chunk in an array of ``count`` rows: some 64 chunks, so that a kill loses little; none tiny, none over 16 MiB."""
    return max(1, min(max(SMALLEST_BLOCK_ROWS, -(-count // BLOCKS)), LARGEST_BLOCK_BYTES // row_bytes))


def token_dtype(codebook_size: int) -> np.dtype[Any]:
    """The smallest type in which tokens are stored that holds every code of the codebook."""
    return np.dtype(np.uint16 if codebook_size <= 2**16 else np.int32)


@final
@dataclass(frozen=True)
class Layout:
    """An array (N, …) in blocks of ``rows`` rows, each block one chunk: raw little-endian data and a CRC-32C behind it."""

    shape: tuple[int, ...]
    dtype: str
    rows: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int) -> Self:
        """The layout of a new array; blocks are no larger than the array."""
        return cls(shape, dtype.name, max(1, min(rows, shape[0]) if shape[0] else rows))

    def as_json(self) -> dict[str, Any]:
        """The layout as plain JSON data."""
        return {"shape": list(self.shape), "dtype": self.dtype, "rows": self.rows}

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return (self.rows, *self.shape[1:])

    @property
    def blocks(self) -> int:
        return math.ceil(self.shape[0] / self.rows)

    @property
    def chunk_bytes(self) -> int:
        """The size of every chunk file: zarr pads the last one."""
        return math.prod(self.chunk_shape) * np.dtype(self.dtype).itemsize + CHECKSUM_BYTES

    def block_rows(self, block: int) -> tuple[int, int]:
        """First row and end row (exclusive) of a block."""
        return block * self.rows, min((block + 1) * self.rows, self.shape[0])

    def chunk_key(self, name: str, block: int) -> str:
        """Where zarr v3 keeps the chunk of a block, within the group."""
        return "/".join([name, "c", str(block), *["0"] * (len(self.shape) - 1)])

    def missing(self, name: str, sizes: Mapping[str, int]) -> list[int]:
        """The blocks without a whole chunk among files of these sizes."""
        return [block for block in range(self.blocks) if sizes.get(self.chunk_key(name, block)) != self.chunk_bytes]

    def defect(self, name: str, sizes: Mapping[str, int]) -> str | None:
        """What is wrong with the first block without a whole chunk; None if all are whole."""
        for block in self.missing(name, sizes)[:1]:
            size = sizes.get(self.chunk_key(name, block))
            if size is None:
                return f"chunk {block} of array {name!r} is missing"
            return f"chunk {block} of array {name!r} has {size} bytes instead of {self.chunk_bytes}"
        return None
