"""Random rows of a token array, read through memory maps of its chunk files.

zarr decodes whole chunks to give a few rows of each; a chunk file here is raw little-endian data (and a checksum behind it), so a
map of the file gives any row at the price of one page. When a chunk is first touched, all of it is read and compared with what was
written. Chunks of remote stores are copied to local scratch first, and compared on the way.

All chunks stay mapped, and none holds a file descriptor: a store may have thousands of chunks, a process often 1,024 descriptors.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.cache.output import StageOutput
from rarkit.cache.scratch import local_chunks
from rarkit.files.system_errors import system_error
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks


@final
class RowReader:
    """Rows of one array (N, …) of a complete output, in any order. Letters: N rows of the array, B rows asked for."""

    def __init__(self, output: StageOutput, name: str, *, ranks: Ranks = ALONE, reporter: Reporter | None = None) -> None:
        """Maps the chunks; where the store is not a local folder, copies them to scratch first (``scratch.local_chunks``).

        Args:
            output: where the array is.
            name: of the array.
            ranks: those that make this reader together, all at the same point: those of a machine share a copy.
            reporter: shows the progress of the copying; None for none.

        Raises:
            IncompleteError: the output is not complete, or a chunk is missing, too short, or copied and not what was written.
            StoreError: the store cannot be reached, a chunk cannot be opened, or there is no room for the copies.
        """
        output.require_complete()
        layout = output.layout(name)
        self.shape = layout.shape
        self.dtype = np.dtype(layout.dtype).newbyteorder("<")
        self._rows = layout.rows
        with local_chunks(output, name, ranks, reporter or Reporter(quiet=True)) as paths, output.reading_array(name):
            self._chunks = [_mapped(path, layout.chunk_bytes) for path in paths]
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._output, self._name = output, name
        self._keys = [layout.chunk_key(name, block) for block in range(layout.blocks)]
        # Copies were checked as they were made, if the record tells what they must be.
        is_checked = not output.is_local and output.begun().is_sealed
        seen = output.digests.checked if output.is_local else set()
        self._untouched = set() if is_checked else {block for block, key in enumerate(self._keys) if key not in seen}

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, indices: ArrayLike) -> NDArray[Any]:
        """The rows at ``indices`` (B,), as (B, …) of the array's own type, in that order; not to be written to.

        Raises:
            IncompleteError: a chunk that is touched for the first time is not what was written.
        """
        index_B = np.asarray(indices, dtype=np.int64)
        if index_B.size and not (index_B.min() >= 0 and index_B.max() < len(self)):
            raise IndexError(f"rows {index_B.min()} … {index_B.max()} asked of {len(self)}")
        chunk_B, row_B = np.divmod(index_B, self._rows)
        starts, size, chunks = (row_B * self._row_bytes).tolist(), self._row_bytes, self._chunks
        if self._untouched and (touched := self._untouched.intersection(chunk_B.tolist())):
            self._check(touched)
        # Slices of memory views, joined: NumPy's indexing takes three times as long, most of it once for each chunk.
        data = b"".join([chunks[chunk][start : start + size] for chunk, start in zip(chunk_B.tolist(), starts, strict=True)])
        return np.frombuffer(data, self.dtype).reshape(index_B.size, *self.shape[1:])

    def _check(self, blocks: set[int]) -> None:
        with self._output.reading_array(self._name):
            if self._output.begun().is_sealed:
                self._output.digests.check_all([(self._keys[block], self._chunks[block]) for block in sorted(blocks)])
            else:
                # An older rarkit left no digests: zarr compares the checksum behind the chunk.
                for block in sorted(blocks):
                    self._output.read_array(self._name, *self._output.block_rows(self._name, block))
        self._untouched -= blocks


def _mapped(path: str, size: int) -> memoryview:
    """The bytes of a file of ``size`` bytes, mapped privately.

    Raises:
        ValueError: the file has another size.
        OSError: it cannot be opened or mapped.
    """
    import torch

    if (actual := Path(path).stat().st_size) != size:
        raise ValueError(f"{path} has {actual} bytes instead of {size}")
    try:
        # Torch closes the descriptor once the file is mapped; maps of Python and NumPy each keep one open.
        return torch.from_file(path, shared=False, size=size, dtype=torch.uint8).numpy().data
    except RuntimeError as error:
        raise (system_error(error) or error) from error


def read_rows(
    output: StageOutput, name: str, rows_N: NDArray[np.int64], *, ranks: Ranks = ALONE, reporter: Reporter | None = None
) -> NDArray[Any]:
    """Rows of an array, ascending and each at most once; read from start to end if they are all that there are.

    Arguments and errors are those of ``RowReader``.
    """
    if len(rows_N) == output.layout(name).shape[0]:
        return output.read_array(name)
    return RowReader(output, name, ranks=ranks, reporter=reporter).rows(rows_N)
