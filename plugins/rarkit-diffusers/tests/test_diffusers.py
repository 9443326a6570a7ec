"""Codes and images are those of the library, for models that it saved."""

from __future__ import annotations

import inspect
import json
import shutil

import fsspec
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

import rarkit
from rarkit import ImageInfo
from rarkit.errors import GridError, WeightsError
from rarkit.testing import TokenizerSuite
from rarkit.tokenizers import random_weights
from rarkit_diffusers import DiffusersVQ
from rarkit_diffusers._model import DiffusersModel
from rarkit_diffusers.config import VQConfig

TWO = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
SMALL = {**TWO, "block_out_channels": [8, 8], "latent_channels": 4, "num_vq_embeddings": 32, "norm_num_groups": 4}
KINDS = {
    "plain": SMALL,
    "width of codes": {**SMALL, "vq_embed_dim": 6},
    "attention": {**SMALL, "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], "layers_per_block": 2},
    "spatial norm": {**SMALL, "norm_type": "spatial", "block_out_channels": [32, 32]},
    "lookup": {**SMALL, "lookup_from_codebook": True},
    "greyscale": {**SMALL, "in_channels": 1, "out_channels": 1},
    "one resolution": {"block_out_channels": [8], "norm_num_groups": 4, "num_vq_embeddings": 32},
}


def made(config):
    """A model of the library with random weights, whose codes differ."""
    return random_weights(VQModel.from_config(config), 0).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "vqvae"
    made(SMALL).save_pretrained(place)
    return place


class TestConformance(TokenizerSuite):
    parts = (DiffusersVQ(weights=None, config=SMALL), DiffusersVQ(weights=None, config=KINDS["greyscale"], batch_size=2))
    reconstructs = False
    tolerance = 1


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_images_are_the_library_s(kind, tmp_path):
    library = made(KINDS[kind])
    library.save_pretrained(tmp_path)
    part = DiffusersVQ(weights=str(tmp_path), batch_size=2)
    model = part.build({}, "cpu")
    channels, side = library.config.in_channels, 16
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, 2 * side, channels), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    with torch.no_grad():
        latents = library.encode(images.permute(0, 3, 1, 2) / 127.5 - 1).latents
        vectors, _, (_, _, found) = library.quantize(latents)
        if library.config.lookup_from_codebook:
            decoded = library.decode(found, force_not_quantize=True, shape=(3, *latents.shape[2:], latents.shape[1])).sample
        else:
            decoded = library.decode(vectors, force_not_quantize=True).sample
    grid = part.grid(ImageInfo(side, 2 * side, channels, ("a",)))
    assert grid == tuple(latents.shape[2:])
    codes = model.encode(images)
    assert torch.equal(codes, found.reshape(3, *grid))
    assert len(codes.unique()) > 4
    expected = (decoded.clamp(-1, 1) + 1).permute(0, 2, 3, 1) * 127.5
    assert (model.decode(codes).float() - expected).abs().max() <= 0.51


def test_the_defaults_are_the_library_s():
    """A config.json of an older version of the library leaves settings out."""
    library = {name: value.default for name, value in inspect.signature(VQModel.__init__).parameters.items()}
    ours = VQConfig().model_dump()
    assert ours == {name: library[name] for name in ours}


def test_files_are_read_as_the_library_saves_them(folder, tmp_path):
    tensors = DiffusersVQ(weights=str(folder)).network().state_dict()
    VQModel.from_pretrained(folder, low_cpu_mem_usage=False).save_pretrained(tmp_path / "bin", safe_serialization=False)
    VQModel.from_pretrained(folder, low_cpu_mem_usage=False).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert (tmp_path / "bin/diffusion_pytorch_model.bin").is_file()
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    VQModel.from_pretrained(folder, low_cpu_mem_usage=False).save_pretrained(tmp_path / "file")
    identities = [DiffusersVQ(weights=str(folder)).identity()]
    for kind in ("bin", "shards", "file/diffusion_pytorch_model.safetensors"):
        part = DiffusersVQ(weights=str(tmp_path / kind))
        identities.append(part.identity())
        read = part.network().state_dict()
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    # The weights are known by their bytes.
    assert identities[0] == identities[3]
    assert len({json.dumps(identity) for identity in identities}) == 3


def test_names_of_older_versions_of_the_library_are_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors, old = load_file(folder / "diffusion_pytorch_model.safetensors"), {}
    for name, value in tensors.items():
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{before}.")
        old[name] = value
    assert len(old.keys() - tensors.keys()) == 16
    save_file(old, tmp_path / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    library = VQModel.from_pretrained(tmp_path, low_cpu_mem_usage=False).state_dict()
    ours = DiffusersVQ(weights=str(tmp_path)).network().state_dict()
    assert ours.keys() == library.keys() == tensors.keys()
    assert all(torch.equal(ours[name], library[name]) for name in library)


def test_half_precision_is_computed_in_float32(folder, tmp_path):
    VQModel.from_pretrained(folder, low_cpu_mem_usage=False).half().save_pretrained(tmp_path)
    network = DiffusersVQ(weights=str(tmp_path)).network()
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


def test_a_folder_elsewhere_is_copied_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    elsewhere = fsspec.filesystem("memory")
    elsewhere.put(str(folder), "/models/vqvae", recursive=True)
    local, remote = DiffusersVQ(weights=str(folder)), DiffusersVQ(weights="memory://models/vqvae")
    assert remote.identity() == local.identity()
    codes = torch.arange(32).reshape(1, 4, 8)
    assert torch.equal(remote.build({}, "cpu").decode(codes), local.build({}, "cpu").decode(codes))
    copies = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert copies.count("diffusion_pytorch_model.safetensors") == 1


def test_a_bundle_needs_no_file(folder):
    part = DiffusersVQ(weights=str(folder))
    bundled, state = part.without_files({})
    assert bundled.weights is None
    codes = torch.arange(32).reshape(1, 4, 8)
    assert torch.equal(bundled.build(state, "cpu").decode(codes), part.build({}, "cpu").decode(codes))


def test_a_rehearsal_has_the_same_codes_and_no_weights(tmp_path):
    large = {**SMALL, "block_out_channels": [16, 64], "layers_per_block": 3}
    VQModel.from_config(large).save_pretrained(tmp_path)
    part = DiffusersVQ(weights=str(tmp_path))
    rehearsed, info = part.rehearsed(), ImageInfo(32, 32, 3, ("a",))
    assert (rehearsed.weights, rehearsed.codebook_size(), rehearsed.grid(info)) == (None, part.codebook_size(), part.grid(info))
    rehearsed.check_decoding(rehearsed.build({}, "cpu"), rehearsed.grid(info), info)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_class_name": "AutoencoderKL"}, "a model of the class AutoencoderKL.* takes a VQModel, whose images have codes"),
        ({"out_channels": 1}, "reads 3 channels and writes 1"),
        ({"in_channels": 4, "out_channels": 4}, "in_channels: Input should be 1 or 3"),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "have 2, 1 and 2 entries"),
        ({"down_block_types": ["DownEncoderBlock2D", "Nonsense"]}, "diffusers makes no VQModel of this config: Nonsense"),
        ({"norm_num_groups": 3}, "diffusers makes no VQModel"),
    ],
)
def test_other_models_are_refused(change, told):
    with pytest.raises(WeightsError, match=told):
        DiffusersVQ(weights=None, config={**SMALL, **change}).build({}, "cpu")


def test_folders_that_do_not_fit_are_told_apart(folder, tmp_path):
    def refused(message, place=tmp_path):
        with pytest.raises(WeightsError, match=message):
            DiffusersVQ(weights=str(place)).network()

    refused("nowhere has no config.json.* hf://owner/name/folder", tmp_path / "nowhere")
    refused("has no config.json, which save_pretrained of diffusers writes")
    pipeline = {"vqvae": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet2DModel"], "_class_name": "LDMPipeline"}
    (tmp_path / "model_index.json").write_text(json.dumps(pipeline))
    refused("is a pipeline: name the folder of its VQModel, vqvae")
    (tmp_path / "config.json").write_text("[1]")
    refused("config.json is not a table in JSON")
    shutil.copy(folder / "config.json", tmp_path)
    refused("there is no file")
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    fewer = {name: value for name, value in tensors.items() if "quant_conv.bias" not in name}
    save_file(fewer, tmp_path / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    refused("missing: quant_conv.bias, post_quant_conv.bias. Is the config.json beside it that of these weights")
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    refused("unexpected: more")
    shape = {**tensors, "quantize.embedding.weight": torch.zeros(3, 4)}
    save_file(shape, tmp_path / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    refused("it has 3 codes")
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "kl")
    refused("the class AutoencoderKL", tmp_path / "kl")


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match="need config"):
        DiffusersVQ(weights=None)
    with pytest.raises(ValidationError, match="leave config out"):
        DiffusersVQ(weights="vqvae", config=SMALL)


def test_images_that_do_not_fit_are_refused(folder):
    with pytest.raises(GridError, match="takes colour images whose sides are multiples of 2"):
        DiffusersVQ(weights=str(folder)).grid(ImageInfo(16, 15, 3, ("a",)))
    with pytest.raises(GridError, match="takes greyscale images"):
        DiffusersVQ(weights=None, config=KINDS["greyscale"]).grid(ImageInfo(16, 16, 3, ("a",)))


def test_memory_is_bounded_by_the_batch(monkeypatch):
    model = DiffusersVQ(weights=None, config=SMALL, batch_size=2).build({}, "cpu")
    assert isinstance(model, DiffusersModel)
    seen = []
    plain = model.network.encoder.forward
    monkeypatch.setattr(model.network.encoder, "forward", lambda images: seen.append(len(images)) or plain(images))
    model.encode(torch.zeros(5, 8, 8, 3, dtype=torch.uint8))
    assert seen == [2, 2, 1]


def test_a_recipe_runs_to_its_samples(folder, tmp_path):
    recipe = rarkit.make_recipe(
        dataset={"name": "generated", "height": 8, "width": 8, "class_names": ("a", "b"), "train_images": 16, "test_images": 8},
        tokenizer={"name": "diffusers_vq", "weights": str(folder)},
        model={"hidden_size": 32, "depth": 1, "num_heads": 2},
        train={"steps": 2, "batch_size": 4, "precision": "float32"},
        sample={"per_class": 2, "batch_size": 4},
        name="diffusers",
    )
    stores = {"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs")}
    run = rarkit.run(recipe, **stores, until="sample", device="cpu", quiet=True)
    assert np.asarray(run.tokens).shape == (4, 16)


def test_the_installed_plugin_is_found():
    tokenizers = rarkit.parts(strict=True).tokenizers
    assert tokenizers["diffusers_vq"] is DiffusersVQ
    assert tokenizers.source("diffusers_vq").distribution == "rarkit-diffusers"
