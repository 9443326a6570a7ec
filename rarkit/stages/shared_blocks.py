"""Blocks that ranks make together: each takes its share of what is missing; the first declares the arrays and finishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rarkit.errors import DatasetError
from rarkit.images import ImageReader
from rarkit.stages.base import Work


def missing_on_all(work: Work[Any], arrays: Callable[[], Mapping[str, Sequence[str]]]) -> dict[str, list[int]]:
    """The blocks that are missing, the same on all ranks. They call it once the first has declared the arrays, before they write.

    Args:
        work: that of the stage.
        arrays: gives, on the first rank, arrays with equally many blocks by a name for them.

    Raises:
        StoreError: this rank does not see what the first rank declared.
    """
    output, ranks = work.output, work.ranks
    missing = ranks.told(lambda: {name: output.missing_blocks(names) for name, names in arrays().items()})
    if not ranks.first:
        output.refresh()
    ranks.check_sees(output.path, output.exists)
    return missing


def vouch_for_all(work: Work[Any]) -> None:
    """Waits until all ranks have written; the first then knows of all blocks, without reading them back, and may finish."""
    for written in work.ranks.gathered(work.output.written()):
        work.output.vouch(written)


def check_length(reader: ImageReader, split: str, expected: int) -> None:
    """Raises DatasetError if the reader has another number of images than the arrays have rows."""
    if len(reader) != expected:
        raise DatasetError(
            f"{len(reader):,} images of the split {split!r} are read here, but its arrays have {expected:,} rows: the data "
            "has changed, or differs between ranks. All ranks need the same data."
        )
