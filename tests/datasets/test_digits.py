"""The digits: real data, split class by class, the same on every reading."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.datasets import load_digits

from rarkit.datasets.digits import Digits
from rarkit.datasets.splits import split_rows
from rarkit.errors import UserError


def everything(dataset: Digits):
    return {split: dataset.open(split).read() for split in dataset.splits()}


@pytest.mark.parametrize(
    ("split", "told"), [("tset", r"'tset'; did you mean 'test'\?"), ("validation", "'validation'."), (None, "None.")]
)
def test_a_split_that_does_not_exist_is_named(split, told):
    with pytest.raises(UserError, match=rf"there is no split {told} Splits are 'train' and 'test'"):
        Digits().open(split)


def test_the_splits_hold_every_digit_once():
    found = everything(Digits())
    images = np.concatenate([block.images_NHWC for block in found.values()])
    labels = np.concatenate([block.labels_N for block in found.values()])
    source = load_digits()
    expected = np.round(source["images"].reshape(-1, 64) * 255 / 16).astype(np.uint8)
    ours = np.column_stack([images.reshape(-1, 64), labels.astype(np.uint8)])
    theirs = np.column_stack([expected, source["target"].astype(np.uint8)])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_info_tells_the_truth_without_reading():
    code = "import sys; from rarkit.datasets.digits import Digits; print(Digits().info().num_classes, 'sklearn' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["10", "False"]
    info = Digits().info()
    for block in everything(Digits()).values():
        assert block.images_NHWC.shape[1:] == (info.height, info.width, info.channels)
        assert set(block.labels_N) == set(range(info.num_classes))


@given(
    st.lists(st.integers(0, 4), min_size=10, max_size=200).filter(lambda found: np.bincount(found)[np.unique(found)].min() > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 2**63 - 1),
)
@settings(deadline=None)
def test_a_split_is_a_stratified_partition(labels, fraction, seed):
    labels_N = np.array(labels, dtype=np.int64)
    split = split_rows(labels_N, fraction, seed)
    assert sorted([*split["train"], *split["test"]]) == list(range(len(labels)))
    for label in np.unique(labels_N):
        count = (labels_N == label).sum()
        kept = (labels_N[split["test"]] == label).sum()
        assert 1 <= kept < count
        assert abs(kept - count * fraction) <= 1
    again = split_rows(labels_N, fraction, seed)
    assert all(np.array_equal(split[name], again[name]) for name in split)


def test_rows_are_shuffled_and_the_seed_decides():
    first, other = everything(Digits()), everything(Digits(split_seed=1))
    labels_N = first["train"].labels_N
    assert np.mean(labels_N[1:] == labels_N[:-1]) < 0.15  # sorted rows: 0.99; independent ones: 0.1
    assert not np.array_equal(first["test"].images_NHWC, other["test"].images_NHWC)
    np.testing.assert_array_equal(first["train"].images_NHWC, everything(Digits())["train"].images_NHWC)


@pytest.mark.parametrize(("start", "stop", "rows"), [(0, 359, 100), (5, 6, 1), (10, 50, 1000), (7, 7, 3)])
def test_blocks_are_the_rows_that_were_asked_for(start, stop, rows):
    reader = Digits().open("test")
    blocks = list(reader.blocks(start, stop, rows))
    assert [len(block.labels_N) for block in blocks] == [min(rows, stop - first) for first in range(start, stop, rows)]
    if blocks:
        joined = np.concatenate([block.images_NHWC for block in blocks])
        np.testing.assert_array_equal(joined, reader.read().images_NHWC[start:stop])


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_both_splits_have_images(fraction):
    with pytest.raises(ValidationError):
        Digits(test_fraction=fraction)
