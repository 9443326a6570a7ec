"""How the sample stage cuts its work: chunks of the store, and stretches of chunks that one batch fills.

A stretch is always generated whole and in the same batches, whichever of its blocks are missing and whoever generates it: so the
bits depend neither on an interruption nor on the number of ranks, even where a type is so coarse that they depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from rarkit.stages.tokenize import rows_per_block


@final
@dataclass(frozen=True)
class Stretch:
    """Consecutive blocks, ``start`` to ``stop`` (exclusive) in rows."""

    start: int
    stop: int
    blocks: range

    def batches(self, batch_size: int) -> Iterator[tuple[int, int]]:
        """First row and end row (exclusive) of each batch."""
        for first in range(self.start, self.stop, batch_size):
            yield first, min(first + batch_size, self.stop)


def sample_rows(count: int, row_bytes: int, batch_size: int) -> int:
    """Rows of a chunk of samples: at most 16 MiB of images, in whole batches or a whole number of times in a batch."""
    rows = rows_per_block(count, row_bytes)
    if rows >= batch_size:
        return rows - rows % batch_size
    return batch_size // -(-batch_size // rows)


def stretches(count: int, rows: int, batch_size: int) -> list[Stretch]:
    """All stretches of ``count`` samples in blocks of ``rows``: as many blocks as a batch fills, at least one."""
    blocks, together = -(-count // rows), max(1, batch_size // rows)
    starts = range(0, blocks, together)
    return [
        Stretch(first * rows, min((first + together) * rows, count), range(first, min(first + together, blocks)))
        for first in starts
    ]
