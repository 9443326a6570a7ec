"""What a dataset promises."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from rarkit.datasets.base import Dataset
from rarkit.testing.part_suite import PartSuite


class DatasetSuite(PartSuite, ABC):
    """Set ``parts`` to instances whose data is there; the first ``rows`` of each split are read."""

    parts: ClassVar[Sequence[Dataset]]
    rows: ClassVar[int] = 50

    def test_images_are_what_info_says(self) -> None:
        for part in self.parts:
            info = part.info()
            assert "train" in part.splits()
            assert info.channels in (1, 3)
            assert len(set(info.class_names)) == info.num_classes >= 1
            for split in part.splits():
                reader = part.open(split)
                block = reader.read(0, min(self.rows, len(reader)))
                assert block.images_NHWC.shape[1:] == (info.height, info.width, info.channels)
                assert block.images_NHWC.dtype == np.uint8
                assert block.labels_N.dtype == np.int64
                assert ((block.labels_N >= 0) & (block.labels_N < info.num_classes)).all()

    def test_rows_stay_where_they_are(self) -> None:
        for part in self.parts:
            for split in part.splits():
                stop = min(self.rows, len(part.open(split)))
                whole = part.open(split).read(0, stop)
                for rows in (1, 7, stop):
                    blocks = list(part.open(split).blocks(0, stop, rows))
                    assert all(len(block.labels_N) == rows for block in blocks[:-1])
                    np.testing.assert_array_equal(np.concatenate([block.images_NHWC for block in blocks]), whole.images_NHWC)
                middle = part.open(split).read(stop // 3, stop)
                np.testing.assert_array_equal(middle.images_NHWC, whole.images_NHWC[stop // 3 :])
                np.testing.assert_array_equal(middle.labels_N, whole.labels_N[stop // 3 :])
