"""What tokenizers are given is checked, for all of them: images are bytes, and codes are of the codebook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import GridError, UserError
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.tokenizers.pixel import Pixel

SMALL = MaskGITVQGAN(weights=None, hidden_channels=32, channel_mult=(1, 1), num_res_blocks=1, z_channels=4, codes=5)
CODEBOOK = np.arange(20, dtype=np.float32).reshape(5, 4)
BUILT = {
    "pixel": (Pixel(levels=5), {}, 1),
    "patch_kmeans": (PatchKMeans(patch=2, codes=5), {"codebook": CODEBOOK}, 1),
    "maskgit_vqgan": (SMALL, {}, 3),
}


@pytest.fixture(scope="module", params=BUILT)
def tokenizer(request):
    part, state, channels = BUILT[request.param]
    return part.build(state, "cpu"), channels


@given(code=st.integers(-300, 300))
def test_codes_beyond_the_codebook_are_refused(tokenizer, code):
    model, _ = tokenizer
    codes = torch.tensor([[[0, 1], [code, 4]]])
    if 0 <= code < 5:
        assert model.decode(codes).dtype == torch.uint8
    else:
        with pytest.raises(UserError, match=f"was given code {code}; its codes are 0 … 4"):
            model.decode(codes)


@pytest.mark.parametrize(
    "codes", [torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 4).long(), [[[0]]]]
)
def test_codes_are_grids_of_int64(tokenizer, codes):
    with pytest.raises(UserError, match=r"was given codes of .*int64 \(B, H, W\)"):
        tokenizer[0].decode(codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.float64])
def test_images_are_bytes(tokenizer, dtype):
    model, channels = tokenizer
    with pytest.raises(UserError, match=r"was given images of .*uint8 \(B, H, W, C\)"):
        model.encode(torch.zeros(2, 4, 4, channels).to(dtype))
    for images in (torch.zeros(4, 4, channels, dtype=torch.uint8), np.zeros((2, 4, 4, channels), np.uint8)):
        with pytest.raises(UserError, match="was given images of"):
            model.encode(images)


def test_images_of_another_size_or_colour_are_refused(tokenizer):
    model, channels = tokenizer
    images = torch.zeros(1, 3, 3, 1, dtype=torch.uint8) if channels == 3 else torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    with pytest.raises(GridError):
        model.encode(images)
