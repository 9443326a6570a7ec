"""TiTok is the published one: codes exactly, latents and images within 1e-4, names and shapes of the six released files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

import rarkit
from rarkit import ImageInfo
from rarkit.errors import GridError, RarkitWarning, WeightsError
from rarkit.testing import TokenizerSuite
from rarkit.tokenizers import random_weights
from rarkit_titok import TiTok
from rarkit_titok._model import TiTokModel
from rarkit_titok._network import Block, TiTokNetwork
from rarkit_titok.sizes import PRESETS, PixelDecoderSizes, Preset, TiTokSizes, TransformerSizes

DATA = Path(__file__).parent / "data"
PIXELS = PixelDecoderSizes(codes=48, z_channels=32, hidden_channels=32)
TINY = {"width": 16, "layers": 1, "heads": 2}


def sizes_of(config):
    transformer = TransformerSizes(width=config["width"], layers=config["layers"], heads=config["heads"])
    return TiTokSizes(
        encoder=transformer,
        decoder=transformer,
        tokens=config["num_latent_tokens"],
        codes=config["codebook_size"],
        code_channels=config["token_size"],
        l2_norm=config["l2_norm"],
        pixels=PIXELS if config["legacy"] else None,
        image_size=config["image_size"],
        patch=config["patch"],
    )


def small(name):
    """Tensors and sizes of a file with what the published code computes."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        sizes = sizes_of(json.loads(file.metadata()["config"]))
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    with torch.device("meta"):
        network = TiTokNetwork(sizes)
    # The decoder of MaskGIT-VQGAN is not in the file, which would have twenty times its size.
    lacking = random_weights(network.to_empty(device="cpu"), 0).state_dict()
    return tensors, {**lacking, **weights}, sizes


FIRST = TiTokSizes(
    encoder=TransformerSizes(**TINY),
    decoder=TransformerSizes(**TINY),
    tokens=6,
    codes=32,
    code_channels=4,
    l2_norm=True,
    pixels=PixelDecoderSizes(codes=16, z_channels=8, hidden_channels=32, channel_mult=(1, 1, 1), num_res_blocks=1),
    image_size=16,
    patch=4,
)
SECOND = FIRST.model_copy(update={"pixels": None, "l2_norm": False})


class TestConformance(TokenizerSuite):
    parts = (TiTok(weights=None, sizes=FIRST), TiTok(weights=None, sizes=SECOND, batch_size=2, rounding="down"))
    info = ImageInfo(16, 16, 3, tuple("abc"))
    reconstructs = False
    tolerance = 1


@pytest.mark.parametrize("name", ["titok_small", "titok_pixels_small"])
def test_it_equals_the_published_code(name, tmp_path):
    expected, weights, sizes = small(name)
    torch.save({"model": weights, "step": 3}, tmp_path / "titok.bin")
    model = TiTok(weights=str(tmp_path / "titok.bin"), sizes=sizes, batch_size=1).build({}, "cpu")
    assert isinstance(model, TiTokModel)
    images, codes = expected["inputs/images"], expected["expect/codes"]
    with torch.inference_mode():
        latents = model.latents((images.permute(0, 3, 1, 2).float() / 255).contiguous())
        decoded = model.images(codes)
    assert (latents - expected["expect/latents"]).abs().max() <= 1e-4
    assert torch.equal(model.encode(images), codes)
    if sizes.pixels is None:
        assert (decoded - expected["expect/decoded"]).abs().max() <= 1e-4
        down = TiTok(weights=str(tmp_path / "titok.bin"), sizes=sizes, rounding="down").build({}, "cpu")
        assert (down.decode(codes).int() - expected["expect/images"].int()).abs().max() <= 1
    else:
        # What goes into the decoder that tests/tokenizers/test_maskgit_vqgan.py holds to the published one. It was computed by this
        # code when that gave the published images, within 1e-4, with all of the published file.
        with torch.inference_mode():
            plain = model.network.pixel_decoder(expected["expect/pixel_latents"])
        assert (decoded - plain).abs().max() <= 1e-4


def test_the_first_kind_decodes_the_mean_vector_of_each_place():
    """In float64, from the logits on: softmax, then rows of the codebook by their probability."""
    with torch.device("meta"):
        network = TiTokNetwork(FIRST)
    random_weights(network.to_empty(device="cpu"), 1)
    logits = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network.mixed(logits)
        weights = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
        rows = network.pixel_quantize.embedding.weight.double()
        expected = sum(weights[:, code, None] * rows[code][None, :, None, None] for code in range(16))
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_a_block_is_pre_norm_attention_and_mlp():
    block = random_weights(Block(16, 2), 0).eval()
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        query, key, value = (
            part.unflatten(2, (2, 8)).transpose(1, 2)
            for part in functional.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, 2)
        )
        read = (query @ key.mT / 8**0.5).softmax(3) @ value
        y = x + block.attn.out_proj(read.transpose(1, 2).flatten(2))
        expected = y + block.mlp["c_proj"](functional.gelu(block.mlp["c_fc"](block.ln_2(y))))
        with torch.inference_mode():
            found = block(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_names_and_shapes_of_the_released_files(preset):
    manifest = json.loads((DATA / f"titok_{preset}.manifest.json").read_text())
    part = TiTok(weights=None, preset=preset)
    with torch.device("meta"):
        state = TiTokNetwork(part.network_sizes()).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == manifest["tensors"]
    assert sum(value.numel() for value in state.values()) == manifest["parameters"]
    config = manifest["config"]
    assert part.grid(ImageInfo(256, 256, 3, ("a",))) == (1, config["num_latent_tokens"])
    assert part.codebook_size() == config["codebook_size"]
    assert (PRESETS[preset].l2_norm, PRESETS[preset].pixels is not None) == (config["l2_norm"], config["legacy"])


@pytest.mark.parametrize("preset", ["l32", "sl256_vq8k"])
def test_a_rehearsal_keeps_the_tokens_and_needs_no_file(preset):
    part = TiTok(weights="nowhere.bin", preset=preset).rehearsed()
    info = ImageInfo(256, 256, 3, ("a",))
    assert part.grid(info) == TiTok(weights=None, preset=preset).grid(info)
    assert part.codebook_size() == TiTok(weights=None, preset=preset).codebook_size()
    assert sum(value.numel() for value in part.network().state_dict().values()) < 10**7


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_files_are_read_as_they_are_published(suffix, tmp_path):
    _, weights, sizes = small("titok_pixels_small")
    path = tmp_path / f"titok{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    state = TiTok(weights=str(path), sizes=sizes).network().state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    torch.save({"model": {name: value + 1 for name, value in weights.items()}, "ema": weights}, tmp_path / "both.bin")
    with pytest.warns(RarkitWarning, match="'ema' is used"):
        state = TiTok(weights=str(tmp_path / "both.bin"), sizes=sizes).network().state_dict()
    assert torch.equal(state["latent_tokens"], weights["latent_tokens"])


def test_a_bundle_needs_no_file(tmp_path):
    expected, weights, sizes = small("titok_pixels_small")
    save_file(weights, tmp_path / "titok.safetensors")
    part = TiTok(weights=str(tmp_path / "titok.safetensors"), sizes=sizes)
    bundled, state = part.without_files({})
    assert bundled.weights is None
    codes = expected["expect/codes"]
    assert torch.equal(bundled.build(state, "cpu").decode(codes), part.build({}, "cpu").decode(codes))


def test_weights_that_do_not_fit_are_told_apart(tmp_path):
    _, weights, sizes = small("titok_pixels_small")
    save_file(weights, tmp_path / "titok.safetensors")
    told = r"it has 5 tokens instead of 32, 96 codes instead of 4,096.* Set preset to the file's"
    with pytest.raises(WeightsError, match=told):
        TiTok(weights=str(tmp_path / "titok.safetensors")).network()
    with pytest.raises(WeightsError, match="nowhere"):
        TiTok(weights=str(tmp_path / "nowhere.bin"), sizes=sizes).identity()


@pytest.mark.parametrize("info", [ImageInfo(512, 512, 3, ("a",)), ImageInfo(256, 256, 1, ("a",)), ImageInfo(256, 128, 3, ("a",))])
def test_images_that_do_not_fit_are_refused(info):
    with pytest.raises(GridError, match="takes colour images of 256×256"):
        TiTok(weights=None).grid(info)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_size": 18}, "do not divide into patches of 4"),
        ({"patch": 8}, "decode a patch to 4 pixels a side, but patch is 8"),
        ({"encoder": {"width": 16, "layers": 1, "heads": 3}}, "width 16 is not a multiple of the 3 heads"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(change, told):
    with pytest.raises(ValidationError, match=told):
        TiTok(weights=None, sizes={**FIRST.model_dump(), **change})


def recipe(scan_order):
    return rarkit.make_recipe(
        dataset={"name": "generated", "height": 16, "width": 16, "class_names": ("a", "b"), "train_images": 16, "test_images": 8},
        tokenizer={"name": "titok", "weights": None, "sizes": FIRST.model_dump()},
        scan_order=scan_order,
        model={"hidden_size": 32, "depth": 1, "num_heads": 2},
        train={"steps": 2, "batch_size": 4, "precision": "float32"},
        sample={"per_class": 2, "batch_size": 4},
        name="titok",
    )


@pytest.mark.parametrize("name", ["z_curve", "subsample"])
def test_orders_that_need_several_rows_say_so(name, tmp_path):
    with pytest.raises(GridError, match=rf"'{name}' does not support a grid of 1×6: it needs .* Choose another \[scan_order\]"):
        rarkit.plan(recipe(name), store=str(tmp_path))


def test_all_other_orders_of_rarkit_walk_along_the_row():
    orders = rarkit.parts().scan_orders
    builtin = [name for name in orders if orders.source(name).plugin == "builtin"]
    taking = {name for name in builtin if orders[name]().requirement(1, 32) is None}
    assert set(builtin) - taking == {"z_curve", "subsample"}
    for name in taking:
        np.testing.assert_array_equal(orders[name]().order(1, 32), np.arange(32))
    np.testing.assert_array_equal(orders["spiral"](direction="outward").order(1, 32), np.arange(32)[::-1])


def test_a_recipe_runs_to_its_samples(tmp_path):
    stores = {"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs")}
    run = rarkit.run(recipe("raster"), **stores, until="sample", device="cpu", quiet=True)
    assert np.asarray(run.tokens).shape == (4, 6)


def test_the_installed_plugin_is_found():
    tokenizers = rarkit.parts(strict=True).tokenizers
    assert tokenizers["titok"] is TiTok
    assert tokenizers.source("titok").distribution == "rarkit-titok"
