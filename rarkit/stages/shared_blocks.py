"""Blocks of arrays that the ranks of a run make together: each takes its share of what is missing, the first declares and finishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rarkit.errors import DatasetError
from rarkit.images import ImageReader
from rarkit.stages.base import Work


def missing_on_all(work: Work[Any], arrays: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The blocks that are missing, the same on all ranks. They call it once the first has declared the arrays, before they write.

    Args:
        work: that of the stage.
        arrays: by name, arrays with equally many blocks.

    Raises:
        StoreError: this rank does not see what the first rank declared.
    """
    output, ranks = work.output, work.ranks
    missing = ranks.told(lambda: {name: output.missing_blocks(names) for name, names in arrays.items()})
    if not ranks.first:
        output.refresh()
    ranks.check_sees(output.path, output.exists)
    return missing


def vouch_for_all(work: Work[Any]) -> None:
    """Waits until all ranks have written; the first then knows of all blocks, without reading them back, and may finish."""
    for written in work.ranks.gathered(work.output.written()):
        work.output.vouch(written)


def check_length(reader: ImageReader, split: str, expected: int) -> None:
    """Raises DatasetError if this rank reads another number of images than the first, which declared the arrays."""
    if len(reader) != expected:
        raise DatasetError(
            f"this rank reads {len(reader):,} images of the split {split!r}, but the first rank {expected:,}. All ranks need the same "
            "data."
        )
