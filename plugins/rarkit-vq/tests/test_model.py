"""The trained tokenizer: what it refuses, and its decoder in an export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from vq_trainings import QUANTIZERS, blobs, random_start, small

import rarkit
from rarkit.errors import GridError, WeightsError
from rarkit.training import Learning
from rarkit_vq import FSQ, VQ, VQTokenizer
from rarkit_vq._decoder import ImageDecoder
from rarkit_vq._layers import joined, patches
from rarkit_vq._levels import as_levels, as_numbers


@pytest.fixture(scope="module")
def state():
    return small(steps=1).fit(blobs(60), 0)


def test_levels_come_back():
    levels_BHWC = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(as_levels(as_numbers(levels_BHWC)), levels_BHWC)
    assert as_numbers(levels_BHWC).aminmax() == (-1, 127 / 128)
    assert as_levels(torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)).flatten().tolist() == [0, 255]


@pytest.mark.parametrize("side", [1, 2, 4])
def test_patches_are_joined_to_the_image(side):
    images_BCHW = torch.randn(2, 3, 8, 12)
    cut = patches(images_BCHW, side)
    assert torch.equal(joined(cut, side), images_BCHW)
    assert torch.equal(
        cut[1, :, 1, 2].reshape(side, side, 3), images_BCHW[1, :, side : 2 * side, 2 * side : 3 * side].movedim(0, -1)
    )


@pytest.mark.filterwarnings("ignore:tokenizer 'vq' uses")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["kmeans", *QUANTIZERS])
def test_an_export_decodes_the_same(kind, channels, tmp_path):
    part = small(downsample=8) if kind == "kmeans" else random_start(kind)
    state = part.fit(blobs(60, channels), 0)
    codes_BHW = torch.randint(part.codebook_size(), (5, 2, 2))
    exported = part.image_decoder(state)
    save_file(dict(exported.tensors), tmp_path / "decoder.safetensors")
    decoder = ImageDecoder(dict(exported.settings), str(tmp_path / "decoder.safetensors"))
    assert torch.equal(decoder.decode(codes_BHW), part.build(state, "cpu").decode(codes_BHW))


@pytest.mark.parametrize("downsample", [2, 4, 8, 16])
@pytest.mark.parametrize("start", ["kmeans", "random"])
def test_a_token_is_so_many_pixels_wide(downsample, start):
    part = small(start=start, downsample=downsample, steps=1, quantizer=VQ(codes=4, dimensions=3))
    model = part.build(part.fit(blobs(60), 0), "cpu")
    images_NHWC = torch.from_numpy(np.tile(blobs(2).read().images_NHWC, (1, 1, 3, 1)))
    codes_NHW = model.encode(images_NHWC)
    assert codes_NHW.shape == (2, 16 // downsample, 48 // downsample)
    assert model.decode(codes_NHW).shape == images_NHWC.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantizer": FSQ()}, "start = \"kmeans\" is a codebook, which quantizer 'fsq' has not"),
        ({"quantizer": VQ(cosine=True)}, 'compares positions, not directions: set quantizer.cosine = false, or start = "random"'),
        ({"micro_batch_size": 5}, "is not divisible by micro_batch_size 5"),
        ({"start": "random", "quantizer": {"name": "fsq", "levels": [256, 256, 3]}}, "make 196608 codes, more than 65536"),
        ({"quantizer": {"name": "rvq"}}, "does not match any of the expected tags"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message.replace("[", r"\[")):
        VQTokenizer(**settings)


def test_images_that_do_not_divide_are_refused():
    with pytest.raises(GridError, match="60×64 into tokens of 8×8 pixels"):
        VQTokenizer().grid(rarkit.ImageInfo(60, 64, 3, ("a",)))


def test_images_of_other_channels_are_refused(state):
    with pytest.raises(GridError, match="trained on images with 3 channels, but these have 1"):
        small().build(state, "cpu").encode(torch.zeros(1, 16, 16, 1, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: {}, "Run the fit stage"),
        (
            lambda state: {name: array for name, array in state.items() if name != "encoder.into.weight"},
            "'encoder.into.weight' .* are missing",
        ),
        (lambda state: state | {"more": np.zeros(1)}, "'more' .* belong to none of its layers"),
        (lambda state: state | {"encoder.into.bias": np.zeros(1, np.float32)}, "have the shape"),
        (lambda state: state | {"decoder.out.bias": np.full(3, np.nan, np.float32)}, "not finite numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(state, damage, message):
    with pytest.raises(WeightsError, match=message):
        small().build(damage(state), "cpu")


def test_a_rehearsal_is_short_and_of_the_same_kind():
    part = random_start("simvq", steps=10_000, width=64)
    rehearsed = part.rehearsed()
    assert (rehearsed.steps, rehearsed.width, rehearsed.quantizer) == (2, 8, part.quantizer)
    VQTokenizer.model_validate(rehearsed.model_dump())


@pytest.mark.filterwarnings("ignore:tokenizer 'vq' uses")
@pytest.mark.parametrize("kind", ["kmeans", "vq", "lfq"])
def test_training_in_bfloat16_begins_as_in_float32(kind):
    losses = {}
    for precision in ("float32", "bfloat16"):
        part = small(precision=precision) if kind == "kmeans" else random_start(kind, precision=precision)
        learning = Learning()
        state = part.learn(blobs(60), 0, learning)
        losses[precision] = learning.finished[0].log["loss"]
        assert all(array.dtype == np.float32 for name, array in state.items() if array.dtype.kind == "f")
    np.testing.assert_allclose(losses["bfloat16"][0], losses["float32"][0], rtol=0.01)
