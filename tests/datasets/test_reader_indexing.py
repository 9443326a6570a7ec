"""Readers index and iterate, whatever their dataset; a torch ``DataLoader`` takes one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.datasets.digits import Digits
from rarkit.errors import PluginError
from rarkit.images import ImageReader

READER = Digits().open("test")
WHOLE = READER.read()


@given(st.lists(st.integers(-len(READER), len(READER) - 1), max_size=9))
def test_rows_are_those_of_the_whole(rows):
    items = READER.__getitems__(rows)
    assert [label for _, label in items] == [int(WHOLE.labels_N[row]) for row in rows]
    for row, (image_HWC, label) in zip(rows, items, strict=True):
        np.testing.assert_array_equal(image_HWC, WHOLE.images_NHWC[row])
        assert READER[row][1] == label


def test_iteration_gives_all_rows_once():
    images, labels = zip(*READER, strict=True)
    np.testing.assert_array_equal(np.stack(images), WHOLE.images_NHWC)
    assert list(labels) == WHOLE.labels_N.tolist()
    images[0][:] = 0
    np.testing.assert_array_equal(READER[0][0], WHOLE.images_NHWC[0])


def test_rows_beyond_the_end_are_refused():
    for row in (len(READER), -len(READER) - 1):
        with pytest.raises(IndexError, match=f"asked of {len(READER)} images"):
            READER[row]
    with pytest.raises(TypeError):
        READER["0"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_takes_a_reader(workers):
    from torch.utils.data import DataLoader

    loader = DataLoader(READER, batch_size=100, num_workers=workers)
    images, labels = zip(*loader, strict=True)
    np.testing.assert_array_equal(np.concatenate(images), WHOLE.images_NHWC)
    np.testing.assert_array_equal(np.concatenate(labels), WHOLE.labels_N)


@pytest.mark.parametrize("views", [0, 7, 2.0])
def test_views_must_divide_the_rows(views, monkeypatch):
    monkeypatch.setattr(ImageReader, "views", views)
    with pytest.raises(PluginError, match="views of each image; that must divide them"):
        Digits().open("test")
