"""Pixels: the nearest of evenly spaced shades, and nothing lost where there are no more shades than levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.datasets.digits import Digits
from rarkit.errors import GridError
from rarkit.images import ImageInfo
from rarkit.tokenizers.pixel import Pixel

SHADES = torch.arange(256, dtype=torch.uint8).reshape(2, 8, 16, 1)


@given(st.integers(2, 256))
@settings(deadline=None)
def test_codes_are_the_nearest_level(levels):
    model = Pixel(levels=levels).build({}, "cpu")
    codes = model.encode(SHADES)
    assert codes.shape == SHADES.shape[:3]
    assert codes.dtype == torch.int64
    distance = np.abs(np.arange(256)[:, None] - np.arange(levels) * 255 / (levels - 1))
    chosen = distance[np.arange(256), codes.flatten().numpy()]
    np.testing.assert_allclose(chosen, distance.min(1), atol=1e-9)


@given(st.integers(2, 256))
@settings(deadline=None)
def test_every_code_survives_decoding(levels):
    model = Pixel(levels=levels).build({}, "cpu")
    codes = torch.arange(levels).reshape(1, 1, levels)
    images = model.decode(codes)
    assert images.dtype == torch.uint8
    assert images.shape == (1, 1, levels, 1)
    assert torch.equal(model.encode(images), codes)
    assert images[0, 0, 0].item() == 0
    assert images[0, 0, -1].item() == 255


def test_digits_come_back_to_the_bit():
    images = torch.from_numpy(Digits().open("train").read().images_NHWC)
    model = Pixel().build({}, "cpu")
    assert torch.equal(model.decode(model.encode(images)), images)


def test_colour_is_refused():
    with pytest.raises(GridError, match="3 channels"):
        Pixel().grid(ImageInfo(8, 8, 3, ("a",)))
    with pytest.raises(GridError, match="3 channels"):
        Pixel().build({}, "cpu").encode(torch.zeros(1, 2, 2, 3, dtype=torch.uint8))
    assert Pixel().grid(ImageInfo(8, 6, 1, ("a",))) == (8, 6)
    assert Pixel(levels=5).codebook_size() == 5
