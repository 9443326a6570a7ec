"""The conformance suite of datasets."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar, get_args

import numpy as np
import pytest

from rarkit.datasets.base import Dataset
from rarkit.errors import DatasetError
from rarkit.images import ImageBlock, Split
from rarkit.testing.part_suite import PartSuite


class DatasetSuite(PartSuite, ABC):
    """Set ``parts`` to instances whose data is present; the first ``rows`` images of each split are read."""

    parts: ClassVar[Sequence[Dataset]]
    rows: ClassVar[int] = 50

    def test_images_are_what_info_says(self) -> None:
        for part, split in self._splits():
            info = part.info()
            assert info.channels in (1, 3)
            assert len(set(info.class_names)) == info.num_classes >= 1, "each class must have a name of its own"
            block = part.open(split).read(0, self._stop(part, split))
            assert block.images_NHWC.shape[1:] == (info.height, info.width, info.channels)
            assert block.labels_N.dtype == np.int64, f"labels must be int64, not {block.labels_N.dtype}"
            assert ((block.labels_N >= 0) & (block.labels_N < info.num_classes)).all(), "labels must be in [0, number of classes)"

    def test_the_count_is_that_of_the_images(self) -> None:
        for part, split in self._splits():
            count = part.count(split)
            assert count is None or count == len(part.open(split)), f"{part!r} counts {count} images in {split!r}"

    def test_blocks_have_the_size_asked_for(self) -> None:
        for part, split in self._splits():
            stop = self._stop(part, split)
            for rows in (1, 7, stop, stop + 1):
                sizes = [len(block.labels_N) for block in part.open(split).blocks(0, stop, rows)]
                assert sizes == [min(rows, stop - first) for first in range(0, stop, rows)]

    def test_rows_stay_where_they_are(self) -> None:
        for part, split in self._splits():
            stop = self._stop(part, split)
            whole = part.open(split).read(0, stop)
            for rows in (1, 7):
                # In a list, because a reader must not return the same memory twice.
                _assert_same(list(part.open(split).blocks(0, stop, rows)), whole, 0)
            reader = part.open(split)
            for start in (stop // 2, stop // 3):
                _assert_same([reader.read(start, stop)], whole, start)

    def test_chosen_rows_are_the_rows_of_those_numbers(self) -> None:
        for part, split in self._splits():
            stop = self._stop(part, split)
            reader = part.open(split)
            whole = reader.read(0, stop)
            rows_N = np.array([row for row in range(stop) if row % 5 in (0, 3, 4)])
            blocks = list(reader.chosen(rows_N, 4))
            assert [len(block.labels_N) for block in blocks] == [min(4, len(rows_N) - at) for at in range(0, len(rows_N), 4)]
            _assert_same(blocks, ImageBlock(whole.images_NHWC[rows_N], whole.labels_N[rows_N]), 0)

    def test_splits_are_what_it_says(self) -> None:
        for part in self.parts:
            assert "train" in part.splits()
            assert len(set(part.splits())) == len(part.splits())
            for split in get_args(Split):
                if split not in part.splits():
                    with pytest.raises(DatasetError, match=split):
                        part.open(split)

    def _splits(self) -> list[tuple[Dataset, Split]]:
        return [(part, split) for part in self.parts for split in part.splits()]

    def _stop(self, part: Dataset, split: Split) -> int:
        stop = min(self.rows, len(part.open(split)))
        assert stop > 0, f"{part!r} has no images in split {split!r}"
        return stop


def _assert_same(blocks: Sequence[ImageBlock], whole: ImageBlock, start: int) -> None:
    np.testing.assert_array_equal(np.concatenate([block.images_NHWC for block in blocks]), whole.images_NHWC[start:])
    np.testing.assert_array_equal(np.concatenate([block.labels_N for block in blocks]), whole.labels_N[start:])
