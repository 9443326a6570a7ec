"""MaskGIT-VQGAN is the released one: codes exactly, images within 1e-4, names and shapes of the released file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from rarkit import ImageInfo
from rarkit.errors import GridError, WeightsError
from rarkit.testing import TokenizerSuite
from rarkit.tokenizers import nearest_codes
from rarkit.tokenizers._maskgit_network import MaskGITNetwork
from rarkit.tokenizers.maskgit_vqgan import MaskGITModel, MaskGITVQGAN

DATA = Path(__file__).parents[1] / "data/parity"
SMALL = {"hidden_channels": 32, "channel_mult": (1, 1, 2), "num_res_blocks": 2, "z_channels": 32, "codes": 64}


@pytest.fixture(scope="module")
def parity():
    with safe_open(DATA / "maskgit_vqgan_small.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def weights(parity, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file({name.removeprefix("weights/"): value for name, value in parity.items() if name.startswith("weights/")}, path)
    return path


class TestConformance(TokenizerSuite):
    parts = (MaskGITVQGAN(weights=None, **SMALL), MaskGITVQGAN(weights=None, **SMALL, batch_size=2, rounding="down"))
    info = ImageInfo(16, 32, 3, tuple("abc"))
    reconstructs = False
    # Some processors add convolutions in another order for another batch, which takes a value between two levels to the other.
    tolerance = 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_layouts_equal_the_released_code(parity, weights, layout):
    network = MaskGITVQGAN(weights=str(weights), **SMALL).network().to(memory_format=layout)
    with torch.inference_mode():
        latents = network.encoder(parity["inputs/images"].contiguous(memory_format=layout))
        codes = nearest_codes(latents, network.quantize.embedding.weight)
        decoded = network.decoder(network.quantize.embedding(codes).permute(0, 3, 1, 2).contiguous(memory_format=layout))
    assert (latents - parity["expect/latents"]).abs().max() <= 1e-4
    assert torch.equal(codes.flatten(1), parity["expect/codes"])
    assert (decoded - parity["expect/decoded"]).abs().max() <= 1e-4


def test_the_model_on_bytes_does_what_the_plain_network_does(weights):
    part = MaskGITVQGAN(weights=str(weights), **SMALL, batch_size=2)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8))
    model, plain = part.build({}, "cpu"), part.network()
    with torch.inference_mode():
        latents = plain.encoder((images.permute(0, 3, 1, 2).float() / 255).contiguous())
        codes = nearest_codes(latents, plain.quantize.embedding.weight)
        decoded = plain.decoder(plain.quantize.embedding(codes).permute(0, 3, 1, 2).contiguous())
    assert torch.equal(model.encode(images), codes)
    expected = (decoded.clamp(0, 1) * 255).permute(0, 2, 3, 1)
    assert (model.decode(codes).float() - expected).abs().max() <= 0.5 + 255e-4


def test_images_are_rounded_or_cut_off_as_the_published_sampler_does(parity, weights):
    codes = parity["expect/codes"].reshape(-1, *parity["expect/latents"].shape[2:])
    nearest, down = (MaskGITVQGAN(weights=str(weights), **SMALL, rounding=how).build({}, "cpu") for how in ("nearest", "down"))
    levels = (nearest.images(codes).clamp(0, 1) * 255).permute(0, 2, 3, 1)
    assert torch.equal(nearest.decode(codes), levels.round().byte())
    # The published code's steps on its own decoded images; where they lie within 1e-4 of a whole level, either may come out.
    published = (torch.clamp(parity["expect/decoded"], 0.0, 1.0) * 255.0).permute(0, 2, 3, 1)
    certain = (published - published.round()).abs() > 255e-4
    assert certain.float().mean() > 0.3  # most others are black or white
    assert torch.equal(down.decode(codes)[certain], published.to(torch.uint8)[certain])
    assert MaskGITVQGAN(weights=None).rounding == "nearest"


def test_names_and_shapes_of_the_released_file():
    manifest = json.loads((DATA / "maskgit_vqgan_f16.manifest.json").read_text())
    part, config = MaskGITVQGAN(weights=None), manifest["config"]
    assert (part.hidden_channels, list(part.channel_mult), part.num_res_blocks) == (
        config["hidden_channels"],
        config["channel_mult"],
        config["num_res_blocks"],
    )
    with torch.device("meta"):
        network = MaskGITNetwork(3, part.hidden_channels, part.channel_mult, part.num_res_blocks, part.z_channels, part.codes)
    state = network.state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == manifest["tensors"]
    assert sum(value.numel() for value in state.values()) == manifest["parameters"]
    assert part.grid(ImageInfo(256, 256, 3, ("a",))) == (16, 16)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(2, 40), st.integers(1, 8), st.integers(0, 2**31))
def test_the_nearest_code_is_the_nearest(batch, height, width, codes, latent, seed):
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(codes, latent, generator=generator)
    latents = torch.randn(batch, latent, height, width, generator=generator)
    found = nearest_codes(latents, codebook)
    distance = torch.cdist(latents.permute(0, 2, 3, 1).reshape(-1, latent).double(), codebook.double())
    assert found.shape == (batch, height, width)
    torch.testing.assert_close(distance.gather(1, found.reshape(-1, 1))[:, 0], distance.min(1).values, atol=1e-5, rtol=0)


def test_memory_is_bounded_by_the_batch(weights, monkeypatch):
    model = MaskGITVQGAN(weights=str(weights), **SMALL, batch_size=2).build({}, "cpu")
    assert isinstance(model, MaskGITModel)
    seen = []
    plain = model.network.encoder.forward
    monkeypatch.setattr(model.network.encoder, "forward", lambda images: seen.append(len(images)) or plain(images))
    model.encode(torch.zeros(5, 8, 8, 3, dtype=torch.uint8))
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("info", [ImageInfo(30, 32, 3, ("a",)), ImageInfo(32, 32, 1, ("a",))])
def test_images_that_do_not_fit_are_refused(info):
    with pytest.raises(GridError, match="colour images whose sides are multiples of 16"):
        MaskGITVQGAN(weights=None).grid(info)


def test_weights_that_do_not_fit_are_told_apart(parity, tmp_path):
    good = {name.removeprefix("weights/"): value for name, value in parity.items() if name.startswith("weights/")}

    def refused(tensors, message):
        save_file(tensors, tmp_path / "bad.safetensors")
        with pytest.raises(WeightsError, match=message):
            MaskGITVQGAN(weights=str(tmp_path / "bad.safetensors"), **SMALL).network()

    refused({name: value for name, value in good.items() if "conv_in" not in name}, r"missing: encoder\.conv_in\.weight, decoder")
    refused({**good, "extra": torch.zeros(1)}, r"does not fit the tokenizer: unexpected: extra\. Is it maskgit")
    refused({**good, "quantize.embedding.weight": torch.zeros(3, 32)}, "it has 3 codes instead of 64. Is it maskgit")
    data = (tmp_path / "bad.safetensors").read_bytes()
    (tmp_path / "bad.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        MaskGITVQGAN(weights=str(tmp_path / "bad.safetensors"), **SMALL).network()
    with pytest.raises(WeightsError):
        MaskGITVQGAN(weights=str(tmp_path / "nowhere.bin")).identity()


def test_the_fingerprint_is_the_file_not_its_place(weights, tmp_path):
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(weights.read_bytes())
    one, other = (MaskGITVQGAN(weights=str(path), **SMALL).identity() for path in (weights, copy))
    assert one == other
    assert one != MaskGITVQGAN(weights=None, **SMALL).identity()
