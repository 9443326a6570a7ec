"""The encoded images of all splits of a dataset, in one row: the training images first, then the test images.

Shape letters: N images, F files of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.decoding import EncodedImage, Source
from rarkit.datasets.encoded import EncodedDataset
from rarkit.datasets.webdataset import WebDataset
from rarkit.images import Split
from rarkit.randomness import drawn_rows

SPLITS: tuple[Split, ...] = ("train", "test")


@final
class AllImages:
    """The files of a dataset."""

    def __init__(self, part: EncodedDataset) -> None:
        """Raises DatasetError if they are missing."""
        self._sources: dict[Split, Source] = {split: part.source(split) for split in SPLITS if split in part.splits()}
        self.counts: dict[Split, int] = {split: len(self._sources.get(split, ())) for split in SPLITS}
        # Tar files are read from their start, so that to draw from all would be to read them all.
        self._is_sequential = isinstance(part, WebDataset)

    @property
    def filesystem(self) -> Any:
        """Where the images lie that come without their data."""
        return self._sources["train"].filesystem

    @property
    def portable(self) -> bool:
        """Whether other processes see the same files."""
        return all(source.portable for source in self._sources.values())

    def drawn(self, seed: int, most: int) -> NDArray[np.int64]:
        """The rows of images that stand for all."""
        return np.arange(min(most, self.counts["train"])) if self._is_sequential else drawn_rows(seed, self._count, most)

    def encoded(self, rows_N: NDArray[np.int64]) -> Iterator[EncodedImage]:
        """The images of ascending rows."""
        start = 0
        for split, source in self._sources.items():
            of_split = rows_N[(rows_N >= start) & (rows_N < start + self.counts[split])]
            if len(of_split):
                yield from source.encoded(of_split - start)
            start += self.counts[split]

    def training_labels(self) -> Counter[int] | None:
        """How many training images have each label; None if that cannot be told without reading them."""
        source = self._sources["train"]
        if (labels_F := source.labels()) is not None:
            return Counter(labels_F.tolist())
        first = next(source.encoded(np.arange(1)), None) if len(source) else None
        if first is None or first.data is not None:
            return None
        return Counter(image.label for image in source.encoded(np.arange(len(source))))

    @property
    def _count(self) -> int:
        return sum(self.counts.values())
