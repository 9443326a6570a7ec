"""Images, tokens, labels and orders in the forms that people have them in, for any grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rarkit.errors import GridError, UserError
from rarkit.images import ImageInfo
from rarkit.inference.inputs import images_of, labels_of, order_of, tokens_of
from rarkit.scan_orders.raster import Raster

SIDES = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(SIDES, st.integers(1, 4), st.integers(1, 40), st.randoms(use_true_random=False))
def test_tokens_are_rows_or_grids(grid, count, codes, random):
    height, width = grid
    rows_NL = np.array([[random.randrange(codes) for _ in range(height * width)] for _ in range(count)])
    grids_NHW = rows_NL.reshape(count, height, width)
    for tokens in (rows_NL, grids_NHW, grids_NHW.astype(np.uint8), torch.from_numpy(rows_NL), grids_NHW.tolist()):
        taken_NL = tokens_of(tokens, grid, codes)
        assert taken_NL.dtype == np.int64
        np.testing.assert_array_equal(taken_NL, rows_NL)
    for wrong in (rows_NL + codes, rows_NL - codes, rows_NL[:, :-1], rows_NL[0], rows_NL.astype(float)):
        with pytest.raises(UserError, match="token"):
            tokens_of(wrong, grid, codes)


@given(SIDES, st.sampled_from([1, 3]), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_images_are_arrays_or_pictures(sides, channels, count, seed):
    images_NHWC = np.random.default_rng(seed).integers(0, 256, (count, *sides, channels), dtype=np.uint8)
    info = ImageInfo(*sides, channels, ("0",))
    pictures = [Image.fromarray(image[..., 0] if channels == 1 else image) for image in images_NHWC]
    for images in (images_NHWC, torch.from_numpy(images_NHWC), pictures, tuple(pictures), list(images_NHWC)):
        np.testing.assert_array_equal(images_of(images, info), images_NHWC)
    for wrong in (images_NHWC[:, :-1], images_NHWC[0], images_NHWC.astype(np.int64), [image.convert("RGBA") for image in pictures]):
        with pytest.raises(UserError, match="image"):
            images_of(wrong, info)


@given(SIDES, st.randoms(use_true_random=False))
def test_orders_are_permutations(grid, random):
    length = grid[0] * grid[1]
    order_L = random.sample(range(length), length)
    for order in (order_L, np.array(order_L, np.int16), torch.tensor(order_L), np.array(order_L)[::-1]):
        taken_L, _ = order_of(order, Raster(), grid)
        assert (taken_L.dtype, taken_L.tolist()) == (np.int64, list(np.asarray(order)))
        torch.from_numpy(taken_L)
    assert order_of(None, Raster(), grid)[0].tolist() == order_of("raster", Raster(), grid)[0].tolist() == list(range(length))
    for wrong in ([*order_L[:-1], length], order_L[:-1], [*order_L, 0], np.array(order_L, float)):
        with pytest.raises(GridError, match=r"exactly once|the order is .*; pass a scan order"):
            order_of(wrong, Raster(), grid)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5))
def test_labels_are_numbers_or_names(labels):
    names = ("cat", "dog", "grey fox")
    named = [names[label] for label in labels]
    mixed = [names[labels[0]], *labels[1:]]
    for given_labels in (labels, np.array(labels), torch.tensor(labels), named, tuple(labels), np.array(named), mixed, iter(mixed)):
        assert labels_of(given_labels, len(labels), names).tolist() == labels
    for one in ("fox", 2, np.int64(2), np.array(2), torch.tensor(2), np.str_("fox")):
        assert labels_of(one, len(labels), names).tolist() == [2] * len(labels)
    with pytest.raises(UserError, match="True and False are no classes"):
        labels_of([True, *labels[1:]], len(labels), names)
    for wrong in ([*labels, 0], [3, *labels[1:]], [-1, *labels[1:]], ["cow", *labels[1:]], [*labels[:-1], 0.5]):
        with pytest.raises(UserError, match=r"class|label"):
            labels_of(wrong, len(labels), names)


@pytest.mark.parametrize("tensor", [torch.zeros(1, 8, 8, 1, dtype=torch.bfloat16), torch.zeros(1, 8, 8, 1).to_sparse()])
def test_tensors_that_numpy_has_not_are_refused(tensor):
    with pytest.raises(UserError, match=r"found .* which has no like in NumPy"):
        images_of(tensor, ImageInfo(8, 8, 1, ("a", "b")))
