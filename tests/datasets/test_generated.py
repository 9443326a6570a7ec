"""Generated images keep what a dataset promises, and a class can be told from another."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from rarkit.datasets.generated import Generated
from rarkit.testing import DatasetSuite


class TestGenerated(DatasetSuite):
    parts = (Generated(), Generated(channels=1, height=5, width=9, class_names=("a", "b"), seed=3))


def test_images_of_a_class_are_alike_and_no_two_the_same():
    block = Generated(train_images=60).open("train").read()
    flat = block.images_NHWC.reshape(60, -1).astype(float)
    same = block.labels_N[:, None] == block.labels_N
    distance = np.linalg.norm(flat[:, None] - flat, axis=2)
    apart = ~np.eye(60, dtype=bool)
    assert distance[same & apart].mean() < 0.7 * distance[~same].mean()
    assert distance[apart].min() > 0


def test_splits_and_seeds_differ():
    first = Generated().open("train").read(0, 20).images_NHWC
    assert (first != Generated().open("test").read(0, 20).images_NHWC).any()
    assert (first != Generated(seed=1).open("train").read(0, 20).images_NHWC).any()


def test_the_number_of_classes_counts_and_their_names_do_not():
    two, other, three = (Generated(class_names=names).identity() for names in [("a", "b"), ("c", "d"), ("a", "b", "c")])
    assert two == other != three
    with pytest.raises(ValidationError):
        Generated(class_names=())
