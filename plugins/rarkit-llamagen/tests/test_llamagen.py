"""LlamaGen's tokenizer is the published one: codes exactly, images within 1e-4, names and shapes of the released files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file

import rarkit
from rarkit import ImageInfo
from rarkit.errors import GridError, RarkitWarning, WeightsError
from rarkit.testing import TokenizerSuite
from rarkit_llamagen import LlamaGenVQ
from rarkit_llamagen._image_decoder import ImageDecoder
from rarkit_llamagen._model import LlamaGenModel
from rarkit_llamagen._network import Attention, VQNetwork

DATA = Path(__file__).parent / "data"
SMALL = {"downsample": 2, "channel_mult": (1, 2), "hidden_channels": 32, "z_channels": 32, "codes": 64}
TINY = {**SMALL, "downsample": 4, "channel_mult": (1, 1, 1), "num_res_blocks": 1}


@pytest.fixture(scope="module")
def parity():
    with safe_open(DATA / "llamagen_vq_small.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def tensors(parity):
    return {name.removeprefix("weights/"): value for name, value in parity.items() if name.startswith("weights/")}


@pytest.fixture(scope="module")
def weights(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(tensors, path)
    return path


class TestConformance(TokenizerSuite):
    parts = (LlamaGenVQ(weights=None, **TINY), LlamaGenVQ(weights=None, **SMALL, batch_size=2))
    info = ImageInfo(8, 16, 3, tuple("abc"))
    reconstructs = False
    tolerance = 1


def test_it_equals_the_published_code(parity, weights):
    model = LlamaGenVQ(weights=str(weights), **SMALL, batch_size=1).build({}, "cpu")
    assert isinstance(model, LlamaGenModel)
    images, codes = parity["inputs/images"], parity["expect/codes"]
    with torch.inference_mode():
        latents = model.latents((images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous())
        decoded = model.images(codes)
    assert (latents - parity["expect/latents"]).abs().max() <= 1e-4
    assert torch.equal(model.encode(images), codes)
    assert (decoded - parity["expect/decoded"]).abs().max() <= 1e-4
    assert (model.decode(codes).int() - parity["expect/images"].int()).abs().max() <= 1


def test_levels_are_those_that_the_published_sampler_stores(parity, weights):
    """It adds 128 to 127.5 times the value and cuts off; where that lies within 1e-2 of a whole number, either may come out."""
    model = LlamaGenVQ(weights=str(weights), **SMALL).build({}, "cpu")
    levels = (127.5 * parity["expect/decoded"] + 128).clamp(0, 255).permute(0, 2, 3, 1)
    certain = (levels - levels.round()).abs() > 2e-2
    assert certain.float().mean() > 0.5
    assert torch.equal(model.decode(parity["expect/codes"])[certain], levels.byte()[certain])


@pytest.mark.parametrize(("downsample", "name"), [(16, "llamagen_vq16"), (8, "llamagen_vq8")])
def test_names_and_shapes_of_the_released_files(downsample, name):
    manifest = json.loads((DATA / f"{name}.manifest.json").read_text())
    part = LlamaGenVQ(weights=None, downsample=downsample)
    with torch.device("meta"):
        state = VQNetwork(*part.sizes()).state_dict()
    released = dict(manifest["tensors"])
    assert released.pop("quantize.codebook_used") == [65536]
    assert {key: list(value.shape) for key, value in state.items()} == released
    assert sum(value.numel() for value in state.values()) == manifest["parameters"]
    for side in (256, 384, 512):
        assert part.grid(ImageInfo(side, side, 3, ("a",))) == (side // downsample, side // downsample)
    assert part.codebook_size() == 16384


@pytest.mark.parametrize(
    ("suffix", "entry"),
    [(".safetensors", None), *((suffix, entry) for suffix in (".pt", ".bin") for entry in ("ema", "model", "state_dict", None))],
)
def test_files_are_read_as_they_are_published(tensors, weights, tmp_path, suffix, entry):
    published = {**tensors, "quantize.codebook_used": torch.zeros(65536)}
    path = tmp_path / f"vq{suffix}"
    if suffix == ".safetensors":
        save_file(published, path)
    else:
        torch.save(published if entry is None else {entry: published, "epoch": 3, "args": {"lr": 1e-4}}, path)
    network, expected = (LlamaGenVQ(weights=str(place), **SMALL).network().state_dict() for place in (path, weights))
    assert network.keys() == expected.keys()
    assert all(torch.equal(network[name], expected[name]) for name in expected)


def test_the_moving_average_is_taken_where_there_are_both(tensors, tmp_path):
    torch.save({"model": {name: value + 1 for name, value in tensors.items()}, "ema": tensors}, tmp_path / "vq.pt")
    with pytest.warns(RarkitWarning, match="'ema' is used"):
        network = LlamaGenVQ(weights=str(tmp_path / "vq.pt"), **SMALL).network()
    assert torch.equal(network.quantize.embedding.weight, tensors["quantize.embedding.weight"])


def linear(layer, x):
    return torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias[:, None, None]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_attention_is_softmax_attention_of_all_places(batch, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    layer = Attention(64)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
        x = torch.randn(batch, 64, height, width, generator=generator)
        found = layer(x)
        normed = layer.norm(x)
        q, k, v = (linear(conv, normed) for conv in (layer.q, layer.k, layer.v))
        weights = torch.einsum("bchw,bcyx->bhwyx", q, k).div(64**0.5).flatten(3).softmax(3).unflatten(3, (height, width))
        read = torch.einsum("bhwyx,bcyx->bchw", weights, v)
        expected = x + linear(layer.proj_out, read)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_decoder_of_exports_equals_the_part(parity, weights, tmp_path):
    part = LlamaGenVQ(weights=str(weights), **SMALL)
    decoder = part.image_decoder({})
    save_file({name: value.contiguous() for name, value in decoder.tensors.items()}, tmp_path / "decoder.safetensors")
    built = ImageDecoder(json.loads(json.dumps(decoder.settings)), str(tmp_path / "decoder.safetensors"))
    assert torch.equal(built.decode(parity["expect/codes"]), part.build({}, "cpu").decode(parity["expect/codes"]))


def test_a_bundle_needs_no_file(parity, weights):
    part = LlamaGenVQ(weights=str(weights), **SMALL)
    bundled, state = part.without_files({})
    assert bundled.weights is None
    codes = parity["expect/codes"]
    assert torch.equal(bundled.build(state, "cpu").decode(codes), part.build({}, "cpu").decode(codes))


@pytest.mark.parametrize("info", [ImageInfo(24, 32, 3, ("a",)), ImageInfo(32, 32, 1, ("a",))])
def test_images_that_do_not_fit_are_refused(info):
    with pytest.raises(GridError, match="colour images whose sides are multiples of 16"):
        LlamaGenVQ(weights=None).grid(info)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match="downsample is 16 or 8 in the released files, not 4"):
        LlamaGenVQ(weights=None, downsample=4)
    with pytest.raises(ValidationError, match="make tokens of 4 pixels a side, but downsample is 16"):
        LlamaGenVQ(weights=None, channel_mult=(1, 2, 4))


def test_weights_that_do_not_fit_are_told_apart(tensors, tmp_path):
    save_file(tensors, tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match=r"it has 64 codes instead of 16,384.* Set downsample to 16 for vq_ds16_c2i\.pt"):
        LlamaGenVQ(weights=str(tmp_path / "small.safetensors")).network()
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match="unexpected: more"):
        LlamaGenVQ(weights=str(tmp_path / "more.safetensors"), **SMALL).network()
    broken = {**tensors, "decoder.conv_out.bias": torch.full((3,), torch.nan)}
    save_file(broken, tmp_path / "nan.safetensors")
    model = LlamaGenVQ(weights=str(tmp_path / "nan.safetensors"), **SMALL).build({}, "cpu")
    with pytest.raises(WeightsError, match="'llamagen_vq' decodes codes to numbers that are not finite"):
        model.decode(torch.zeros(1, 4, 4, dtype=torch.int64))


def test_memory_is_bounded_by_the_batch(monkeypatch):
    model = LlamaGenVQ(weights=None, **TINY, batch_size=2).build({}, "cpu")
    assert isinstance(model, LlamaGenModel)
    seen = []
    plain = model.network.encoder.forward
    monkeypatch.setattr(model.network.encoder, "forward", lambda images: seen.append(len(images)) or plain(images))
    model.encode(torch.zeros(5, 8, 8, 3, dtype=torch.uint8))
    assert seen == [2, 2, 1]


def test_a_recipe_runs_to_its_samples(tmp_path):
    recipe = rarkit.make_recipe(
        dataset={"name": "generated", "height": 16, "width": 16, "class_names": ("a", "b"), "train_images": 16, "test_images": 8},
        tokenizer={"name": "llamagen_vq", "weights": None, **TINY},
        model={"hidden_size": 32, "depth": 1, "num_heads": 2},
        train={"steps": 2, "batch_size": 4, "precision": "float32"},
        sample={"per_class": 2, "batch_size": 4},
        name="llamagen",
    )
    run = rarkit.run(recipe, store=str(tmp_path / "store"), runs=str(tmp_path / "runs"), until="sample", device="cpu", quiet=True)
    assert np.asarray(run.tokens).shape == (4, 16)


def test_the_installed_plugin_is_found():
    tokenizers = rarkit.parts(strict=True).tokenizers
    assert tokenizers["llamagen_vq"] is LlamaGenVQ
    assert tokenizers.source("llamagen_vq").distribution == "rarkit-llamagen"
