"""Crops of the two photographs: where they come from, and that training and test images share no pixel."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
from pydantic import ValidationError

from rarkit.datasets.photographs import CLASSES, Photographs
from rarkit.testing import DatasetSuite


class TestPhotographs(DatasetSuite):
    parts = (Photographs(train_images=80, test_images=60), Photographs(size=9, train_images=50, test_images=50, seed=3))


@pytest.fixture
def real(monkeypatch):
    """The photographs. Those that are read instead say in their pixels where they lie."""
    load = sklearn.datasets.load_sample_image
    row_HW, column_HW = np.mgrid[:427, :640]

    def places(name: str) -> np.ndarray:
        third = row_HW // 256 + 2 * (column_HW // 256) + 8 * CLASSES.index(name.removesuffix(".jpg"))
        return np.dstack([row_HW % 256, column_HW % 256, third]).astype(np.uint8)

    monkeypatch.setattr(sklearn.datasets, "load_sample_image", places)
    return [load(f"{name}.jpg") for name in CLASSES]


@pytest.mark.parametrize(("split", "first", "last"), [("train", 0, 511), ("test", 512, 639)])
@pytest.mark.parametrize(("size", "count"), [(9, 4000), (128, 20)])
def test_crops_are_windows_of_their_split_and_reach_its_edges(real, monkeypatch, split, first, last, size, count):
    part = Photographs(size=size, train_images=count, test_images=count)
    block = part.open(split).read()
    red, green, blue = np.moveaxis(block.images_NHWC.astype(int), -1, 0)
    row, column, number = red + 256 * (blue % 2), green + 256 * (blue // 2 % 4), blue // 8
    assert block.labels_N.tolist() == [0, 1] * (count // 2)
    assert (number == block.labels_N[:, None, None]).all()
    assert (np.diff(row, axis=1) == 1).all()
    assert (np.diff(column, axis=2) == 1).all()
    assert first <= column.min()
    assert column.max() <= last
    if count > 1000:
        assert (row.min(), row.max(), column.min(), column.max()) == (0, 426, first, last)
    monkeypatch.undo()
    images_NHWC = part.open(split).read(0, 20).images_NHWC
    for index, image_HWC in enumerate(images_NHWC):
        np.testing.assert_array_equal(image_HWC, real[index % 2][row[index], column[index]])


def test_the_seed_decides_and_more_images_keep_the_first():
    first = Photographs(train_images=20).open("train").read().images_NHWC
    assert (first != Photographs(train_images=20, seed=1).open("train").read().images_NHWC).any()
    np.testing.assert_array_equal(first, Photographs(train_images=30).open("train").read(0, 20).images_NHWC)


def test_info_is_told_without_reading():
    code = (
        "import sys; from rarkit.datasets.photographs import Photographs; part = Photographs();"
        "print(part.info().num_classes, part.count('train'), {'sklearn', 'PIL'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["2", "8000", "set()"]


def test_crops_fit_into_what_is_held_out():
    with pytest.raises(ValidationError, match="less than or equal to 128"):
        Photographs(size=129)
