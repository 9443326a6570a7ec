"""The conformance suite of datasets."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar, get_args

import numpy as np
from hypothesis import strategies as st

from rarkit.datasets.base import Dataset
from rarkit.errors import DatasetError
from rarkit.images import ImageBlock, ImageReader, Split, joined
from rarkit.testing.digests import digest
from rarkit.testing.failure import for_all, require, trying
from rarkit.testing.part_suite import PartSuite, fresh, untouched_randomness

AT_ONCE, STRETCH = 50, 64
"""Rows of a block where all are read, and the most rows of a stretch that is read again."""
SAME = "Row i must always be the same image with the same label"


class DatasetSuite(PartSuite, ABC):
    """Set ``parts`` to instances whose data is present. Of a split of more than ``rows`` images, the first and the last ones and a
    sample of the others are read."""

    parts: ClassVar[Sequence[Dataset]] = ()
    rows: ClassVar[int] = 1000

    def test_images_are_what_info_says(self, part: Dataset) -> None:
        with trying(part, "asked for info"):
            info = part.info()
        names = len(set(info.class_names))
        require(names == info.num_classes, part, "its class names", "are not all different", "Give each class a name of its own")
        for split in part.splits():
            labels, levels = set(), set()
            reader = self._open(part, split)
            for rows_N in self._chosen(len(reader)):
                given = _rows(rows_N, split)
                with trying(part, given):
                    block = joined(list(reader.chosen(rows_N, len(rows_N))))
                shape = info.height, info.width, info.channels
                fault = f"has images of {block.images_NHWC.shape[1:]}"
                require(block.images_NHWC.shape[1:] == shape, part, given, fault, f"By info they are {shape}")
                wrong = sorted({int(label) for label in block.labels_N if not 0 <= label < info.num_classes})
                require(not wrong, part, given, f"has the labels {wrong}", f"Labels are from 0 to {info.num_classes - 1}")
                labels |= set(block.labels_N.tolist())
                levels |= set(np.unique(block.images_NHWC).tolist())
            given = f"in split {split!r}"
            cure = "Pixels are bytes from 0 to 255, not fractions of 1"
            require(len(levels) < 2 or max(levels) > 1, part, given, f"has no level but {sorted(levels)}", cure)
            count = len(reader)
            varied = min(info.num_classes, count // 20) < 2 or len(labels) > 1
            require(varied, part, given, f"labels all images {sorted(labels)}", "A label is the number of its image's class")
            require(count < 2 or len(levels) > 1, part, given, f"has no level but {sorted(levels)}", "Read the images")

    def test_the_count_is_that_of_the_images(self, part: Dataset) -> None:
        for split in part.splits():
            with trying(part, f"asked for the count of {split!r}"):
                count, images = part.count(split), len(self._open(part, split))
            require(images > 0, part, f"in split {split!r}", "has no images", "Leave an empty split out of splits()")
            fault = f"counts {count} images where there are {images}"
            require(
                count in (None, images), part, f"in split {split!r}", fault, "count returns what len of its reader does, or None"
            )

    def test_blocks_have_the_size_asked_for(self, part: Dataset) -> None:
        for split in part.splits():
            stop = min(STRETCH, len(self._open(part, split)))
            for rows in (1, 7, stop, stop + 1):
                given = f"asked for rows 0 to {stop - 1} of {split!r} in blocks of {rows}"
                with trying(part, given):
                    sizes = [len(block.labels_N) for block in self._open(part, split).blocks(0, stop, rows)]
                expected = [min(rows, stop - first) for first in range(0, stop, rows)]
                require(sizes == expected, part, given, f"gives blocks of {sizes}", "Only the last block may be shorter")

    def test_rows_stay_where_they_are(self, part: Dataset) -> None:
        for split in part.splits():
            reader, again = self._open(part, split), self._open(fresh(part), split)
            count = len(reader)

            def stays(
                drawn: tuple[int, int, int], split: Split = split, reader: ImageReader = reader, again: ImageReader = again
            ) -> None:
                start, length, rows = drawn
                stop = min(len(reader), start + length)
                given = f"asked for rows {start} to {stop - 1} of {split!r} in blocks of {rows}"
                # In a list, because a reader must not return the same memory twice.
                with trying(part, given):
                    blocks = list(reader.blocks(start, stop, rows))
                    whole = again.read(start, stop)
                _require_same(part, blocks, whole, given, "gives other images or labels than in one block")

            with untouched_randomness(part, f"read, split {split!r}"):
                for first in (0, max(0, count - STRETCH)):
                    stays((first, STRETCH, 7))
                for_all(st.tuples(st.integers(0, count - 1), st.integers(1, STRETCH), st.integers(1, STRETCH)), stays, most=12)

    def test_two_readers_do_not_disturb_each_other(self, part: Dataset) -> None:
        for split in part.splits():
            reader = self._open(part, split)
            stop = min(STRETCH, len(reader))
            given = f"read by two at the same time, rows 0 to {stop - 1} of {split!r}"
            with trying(part, given):
                pairs = list(zip(reader.blocks(0, stop, 5), reader.blocks(0, stop, 5), strict=True))
                whole = self._open(part, split).read(0, stop)
            for blocks in zip(*pairs, strict=True):
                _require_same(part, list(blocks), whole, given, "gives other images or labels than to one")

    def test_chosen_rows_are_the_rows_of_those_numbers(self, part: Dataset) -> None:
        for split in part.splits():
            reader = self._open(part, split)
            stop = min(STRETCH, len(reader))
            whole = reader.read(0, stop)

            def chosen(rows: frozenset[int], split: Split = split, reader: ImageReader = reader, whole: ImageBlock = whole) -> None:
                rows_N, given = (
                    np.array(sorted(rows), dtype=np.int64),
                    f"asked for the rows {sorted(rows)} of {split!r}, 4 at a time",
                )
                with trying(part, given):
                    blocks = list(reader.chosen(rows_N, 4))
                sizes = [len(block.labels_N) for block in blocks]
                expected = [min(4, len(rows_N) - at) for at in range(0, len(rows_N), 4)]
                require(sizes == expected, part, given, f"gives blocks of {sizes}", "Only the last block may be shorter")
                wanted = ImageBlock(whole.images_NHWC[rows_N], whole.labels_N[rows_N])
                _require_same(part, blocks, wanted, given, "gives other rows")

            chosen(frozenset(row for row in range(stop) if row % 5 in (0, 3, 4)))
            for_all(st.frozensets(st.integers(0, stop - 1), min_size=1, max_size=20), chosen, most=8)

    def test_splits_are_what_it_says(self, part: Dataset) -> None:
        with trying(part, "asked for its splits"):
            splits = part.splits()
        fault = f"has the splits {splits!r}"
        require(
            "train" in splits and len(set(splits)) == len(splits), part, "asked for its splits", fault, "'train' is one of them"
        )
        for split in get_args(Split):
            if split not in splits:
                given, cure = f"asked for split {split!r}, which splits() lacks", "Raise DatasetError that names the split"
                require(_refuses(part, split), part, given, "opens it, or raises an error that does not name it", cure)

    def test_test_images_are_not_those_of_training(self, part: Dataset) -> None:
        if "test" not in part.splits():
            return
        train, test = (self._digests(part, split) for split in ("train", "test"))
        both = len(train & test)
        fault = f"has {both} of {len(test)} images that were read in 'train', too"
        require(2 * both <= len(test), part, "in split 'test'", fault, "Hold test images out of training, or leave the split out")

    def test_it_is_the_same_in_another_process(self, part: Dataset) -> None:
        self._is_the_same_elsewhere(part)

    def _open(self, part: Dataset, split: Split) -> ImageReader:
        with trying(part, f"opened, split {split!r}"):
            return part.open(split)

    def _chosen(self, count: int) -> list[np.ndarray]:
        """The numbers of the rows that are read, in blocks: all of them, or the ends and a sample of the others."""
        if count <= self.rows:
            rows_N = np.arange(count)
        else:
            ends = np.r_[: self.rows // 2, count - self.rows // 4 : count]
            rows_N = np.union1d(ends, np.random.default_rng(0).integers(0, count, self.rows // 4))
        return np.array_split(rows_N, -(-len(rows_N) // AT_ONCE)) if count else []

    def _digests(self, part: Dataset, split: Split) -> set[str]:
        reader = self._open(part, split)
        with trying(part, f"read, split {split!r}"):
            blocks = [block for rows_N in self._chosen(len(reader)) for block in reader.chosen(rows_N, AT_ONCE)]
        return {digest(image_HWC) for block in blocks for image_HWC in block.images_NHWC}


def _rows(rows_N: np.ndarray, split: Split) -> str:
    return f"in rows {rows_N[0]} to {rows_N[-1]} of {split!r}"


def _refuses(part: Dataset, split: Split) -> bool:
    try:
        part.open(split)
    except DatasetError as error:
        return split in str(error)
    return False


def _require_same(part: Dataset, blocks: Sequence[ImageBlock], whole: ImageBlock, given: str, fault: str) -> None:
    read = joined(blocks)
    same = np.array_equal(read.images_NHWC, whole.images_NHWC) and np.array_equal(read.labels_N, whole.labels_N)
    require(same, part, given, fault, SAME)
