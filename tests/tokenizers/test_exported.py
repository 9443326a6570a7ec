"""A tokenizer in a file: the same codes and images as the one that was written, and one clear message for any other file."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import rarkit
from rarkit.errors import CapabilityError, GridError, PluginError, RecipeError, StoreError, WeightsError
from rarkit.estimate.estimate import estimate
from rarkit.images import ImageInfo
from rarkit.inference.export import export_tokenizer
from rarkit.registry import registered
from rarkit.testing import TokenizerSuite
from rarkit.tokenizers.base import Tokenizer
from rarkit.tokenizers.exported import KEY, Exported, is_exported, write_tokenizer
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.tokenizers.pixel import Pixel
from tests.registry.own_parts import OwnTokenizer

GREY = ImageInfo(8, 8, 1, ("a",))
COLOUR = ImageInfo(8, 8, 3, ("a",))
VQGAN = MaskGITVQGAN(weights=None, hidden_channels=32, channel_mult=(1, 1), num_res_blocks=1, z_channels=32, codes=7)
KMEANS = PatchKMeans(codes=6, iterations=3)
STATE = {"codebook": np.random.default_rng(0).uniform(0, 255, (6, 4)).astype(np.float32)}
ALL: list[tuple[Tokenizer, Mapping[str, Any], ImageInfo]] = [
    (KMEANS, STATE, GREY),
    (Pixel(levels=5), {}, GREY),
    (VQGAN, {}, COLOUR),
]


def images(info: ImageInfo, seed: int = 0, count: int = 3):
    shape = (count, info.height, info.width, info.channels)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tokenizer(KMEANS, STATE, str(tmp_path_factory.mktemp("file") / "kmeans.safetensors"), channels=1)


@pytest.mark.parametrize(("part", "state", "info"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_it_is_the_tokenizer_that_was_written(part, state, info, tmp_path):
    read = Exported(weights=write_tokenizer(part, state, str(tmp_path / "one.safetensors"), channels=info.channels))
    assert (read.codebook_size(), read.grid(info), read.learns) == (part.codebook_size(), part.grid(info), False)
    model, same = part.build(state, "cpu"), read.build({}, "cpu")
    images_BHWC = images(info)
    codes_BHW = model.encode(images_BHWC)
    assert torch.equal(same.encode(images_BHWC), codes_BHW)
    assert torch.equal(same.decode(codes_BHW), model.decode(codes_BHW))
    again = write_tokenizer(read, {}, str(tmp_path / "two.safetensors"), channels=info.channels)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert read.content() == Exported(weights=again).content()


@pytest.mark.parametrize(("part", "state", "info"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_exports_for_transformers_have_its_decoder(part, state, info, tmp_path):
    read = Exported(weights=write_tokenizer(part, state, str(tmp_path / "one.safetensors")))
    decoder, same = part.image_decoder(state), read.image_decoder({})
    assert (same.module, dict(same.settings)) == (decoder.module, dict(decoder.settings))
    assert all(torch.equal(same.tensors[name], tensor) for name, tensor in decoder.tensors.items())


class TestConformance(TokenizerSuite):
    info = GREY
    reconstructs = False

    @pytest.fixture
    def part(self, file):
        return Exported(weights=file)


def test_a_table_with_weights_alone_is_one(file, small_recipe):
    recipe = rarkit.load_recipe(small_recipe, [f"tokenizer={{weights={file!r}}}"], unset=["tokenizer"])
    assert recipe.tokenizer == Exported(weights=file)
    plan = rarkit.plan(recipe, "memory://exported")
    assert "fit" not in {stage.name for stage in plan.stages}
    assert (plan.experiment.grid, plan.experiment.codebook_size) == ((2, 2), 6)
    with pytest.raises(RecipeError, match=r"tokenizer\.name: missing\. Choose one of: exported, "):
        rarkit.load_recipe(small_recipe, ["tokenizer={patch=2}"], unset=["tokenizer"])


def test_its_content_is_in_the_fingerprint_and_not_its_place(file, tmp_path):
    same = write_tokenizer(KMEANS, STATE, str(tmp_path / "same.safetensors"), channels=1)
    other = write_tokenizer(KMEANS, {"codebook": STATE["codebook"] + 1}, str(tmp_path / "other.safetensors"), channels=1)
    assert Exported(weights=same).identity() == Exported(weights=file).identity() != Exported(weights=other).identity()
    # The same place with another file is another tokenizer.
    write_tokenizer(PatchKMeans(codes=3), {"codebook": STATE["codebook"][:3]}, same, overwrite=True)
    assert Exported(weights=same).codebook_size() == 3


def test_a_file_that_is_there_is_left(file, tmp_path):
    with pytest.raises(StoreError, match=r"there is a .*kmeans\.safetensors already, and it is left as it is"):
        write_tokenizer(Pixel(), {}, file)
    assert Exported(weights=file).codebook_size() == 6
    with pytest.raises(WeightsError, match=r"has to end in \.safetensors"):
        write_tokenizer(Pixel(), {}, str(tmp_path / "pixel.bin"))


def test_images_with_other_channels_are_refused_in_planning(file):
    with pytest.raises(GridError, match=r"learned from images with 1 channel, but these have 3\. Set channels in \[dataset\]"):
        Exported(weights=file).grid(COLOUR)


def test_sizes_that_do_not_divide_are_cured_by_others(file, tmp_path):
    """The part's own cure is another patch, which is in the file."""
    with pytest.raises(GridError, match=r"'patch_kmeans' .* 7×8\. .* choose a size divisible by 2, 6×8 or 8×10\.$"):
        Exported(weights=file).grid(ImageInfo(7, 8, 1, ("a",)))
    large = write_tokenizer(PatchKMeans(patch=8), {}, str(tmp_path / "large.safetensors"))
    with pytest.raises(GridError, match=r"images of 36×36\. .* divisible by 8, 32×32 or 40×40\.$"):
        Exported(weights=large).grid(ImageInfo(36, 36, 1, ("a",)))
    with pytest.raises(GridError, match=r"divisible by 8, 8×8\.$"):
        Exported(weights=large).grid(ImageInfo(6, 6, 1, ("a",)))


def test_another_byte_of_an_array_is_refused(file, tmp_path):
    damaged = bytearray(Path(file).read_bytes())
    damaged[-3] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    part = Exported(weights=str(tmp_path / "damaged.safetensors"))
    assert part.codebook_size() == 6
    with pytest.raises(WeightsError, match=r"is damaged \(its arrays are not those that were written\)\. Export it again"):
        part.build({}, "cpu")


def test_a_recipe_that_keeps_other_keys_is_told_that_the_file_stands_alone(small_recipe):
    with pytest.raises(RecipeError, match=r"tokenizer\.weights: no such key: without a name, it stands alone\. Replace the whole"):
        rarkit.load_recipe(small_recipe, ["tokenizer.weights=one.safetensors"])
    with pytest.raises(RecipeError, match=r"tokenizer\.codes: no such key: weights stands alone, since settings are in its file"):
        rarkit.load_recipe(small_recipe, ['tokenizer={weights = "one.safetensors", codes = 5}'])


def test_parts_that_need_their_file_have_none_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(MaskGITVQGAN, "without_files", Tokenizer.without_files)
    part = MaskGITVQGAN(weights=str(tmp_path / "vqgan.bin"))
    with pytest.raises(CapabilityError, match=r"'maskgit_vqgan' .* reads .*vqgan\.bin, which cannot be in a tokenizer's file"):
        write_tokenizer(part, {}, str(tmp_path / "one.safetensors"))


def described(tmp_path, **changes: Any) -> Exported:
    """A tokenizer whose file says other things than ``write_tokenizer`` would."""
    digest = hashlib.sha256().hexdigest()
    said = {"format": 1, "part": {"name": "pixel"}, "version": 1, "made_by": "rarkit 0.1.0", "rarkit": "0.1.0", "digest": digest}
    said |= changes
    place = tmp_path / "described.safetensors"
    save_file({}, place, {KEY: said.pop("text", None) or json.dumps(said)})
    return Exported(weights=str(place))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"part": {"name": "rvq"}, "made_by": "rarkit-rvq 2.0"},
            r"a tokenizer of rarkit-rvq 2\.0, which is not installed here: no ",
        ),
        ({"part": {"name": "pixell"}}, "did you mean 'pixel'"),
        ({"part": {}}, "its part has no name"),
        ({"part": {"name": "pixel", "levels": 1}}, r"is damaged \(levels: Input should be greater than or equal to 2\)"),
        ({"part": {"name": "pixel", "colour": 1}}, r"is damaged \(colour: Extra inputs are not permitted\)"),
        ({"part": {"name": "maskgit_vqgan", "weights": "/etc/passwd"}}, r"wants to read /etc/passwd \(weights\): refused"),
        ({"part": {"name": "exported", "weights": "other.safetensors"}}, "wants to read other.safetensors"),
        ({"version": 7}, r"has version 7 of tokenizer 'pixel', and here is version 1 .* Export it again from a run"),
        ({"version": "1"}, r"is damaged \(version: Input should be a valid integer\)"),
        ({"format": 2}, r"was written by a newer rarkit \(format 2; this one reads up to 1\)"),
        ({"channels": 2}, r"is damaged \(channels: "),
        ({"digest": "0"}, r"is damaged \(digest: "),
        ({"text": "[" * 3000}, "is damaged"),
        ({"text": "pixel"}, "is damaged"),
    ],
)
def test_what_a_file_says_is_not_believed(changes, message, tmp_path):
    part = described(tmp_path, **changes)
    for asked in (part.codebook_size, part.content, lambda: part.grid(GREY), lambda: part.build({}, "cpu")):
        with pytest.raises(WeightsError, match=message):
            asked()


def test_other_files_are_named(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    save_file({}, tmp_path / "bundle.safetensors", {"bundle": "{}"})
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.bin")
    (tmp_path / "text.safetensors").write_text("text")
    for name, message in {
        "plain.safetensors": r"is no tokenizer's file, .* name that too: \[tokenizer\] name",
        "weights.bin": "is no tokenizer's file",
        "bundle.safetensors": r"It is a bundle: rarkit export .*bundle\.safetensors --tokenizer FILE",
        "text.safetensors": "is damaged or not a safetensors file",
        "nowhere.safetensors": "there is no file",
    }.items():
        with pytest.raises(WeightsError, match=message):
            Exported(weights=str(tmp_path / name)).codebook_size()
    assert not is_exported(str(tmp_path / "plain.safetensors"))
    assert not is_exported("runs/digits")


@given(st.data())
@settings(max_examples=30)
def test_a_damaged_file_is_read_as_it_was_or_refused(file, tmp_path_factory, data):
    whole = np.fromfile(file, np.uint8)
    (header,) = struct.unpack("<Q", whole[:8].tobytes())
    place = tmp_path_factory.mktemp("damaged") / "one.safetensors"
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        damaged = whole.copy()
        damaged[data.draw(st.integers(0, 8 + header - 1))] ^= data.draw(st.integers(1, 255))
    place.write_bytes(damaged.tobytes())
    try:
        model = Exported(weights=str(place)).build({}, "cpu")
    except (WeightsError, PluginError):
        return
    assert model.encode(images(GREY)).shape == (3, 4, 4)


def test_arrays_of_strange_numbers_are_refused(tmp_path, file):
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file({"codebook": torch.zeros(6, 4, dtype=torch.bfloat16)}, tmp_path / "strange.safetensors", metadata)
    with pytest.raises(WeightsError, match=r"array 'codebook' is of torch\.bfloat16, which no tokenizer learns"):
        Exported(weights=str(tmp_path / "strange.safetensors")).build({}, "cpu")


def test_a_part_that_was_registered_counts_by_its_source(tmp_path, monkeypatch):
    monkeypatch.setattr(registered, "_registered", {})
    rarkit.register(OwnTokenizer)
    file = write_tokenizer(OwnTokenizer(codes=6), STATE, str(tmp_path / "own.safetensors"))
    assert Exported(weights=file).codebook_size() == 6
    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()[KEY])
    assert len(said["source"]) == 64
    with pytest.raises(PluginError, match=r"whose source is not that of the .*OwnTokenizer known here\. Register the"):
        described(tmp_path, **said | {"source": "0" * 64}).codebook_size()
    with pytest.raises(PluginError, match="whose source is not that of the rarkit"):
        described(tmp_path, **said | {"part": {"name": "pixel"}}).codebook_size()
    monkeypatch.setattr(registered, "_registered", {})
    with pytest.raises(WeightsError, match=r"own_parts\.OwnTokenizer, which is not installed here: no tokenizer is called"):
        Exported(weights=file).codebook_size()


def test_a_trained_tokenizer_goes_from_a_run_to_other_recipes(small_recipe, tmp_path, monkeypatch):
    """By the commands, after ``--until fit``; a run of the recipe to its end has the same codes as one with the file."""
    run = rarkit.run(small_recipe, str(tmp_path / "store"), until="fit", runs=tmp_path / "runs", device="cpu", quiet=True)
    file = export_tokenizer(run.folder, tmp_path / "one.safetensors")
    assert run.save_tokenizer(tmp_path / "two.safetensors") == str(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    with pytest.raises(StoreError, match="already"):
        run.save_tokenizer(file)
    assert run.save_tokenizer(file, overwrite=True) == file
    until = {"until": "tokenize", "runs": tmp_path / "runs", "device": "cpu", "quiet": True}
    first = rarkit.run(small_recipe, str(tmp_path / "store"), **until)
    recipe = rarkit.load_recipe(small_recipe).replace({"tokenizer": {"weights": file}})
    second = rarkit.run(recipe, str(tmp_path / "store"), **until)
    assert [stage.name for stage in second.results] == ["tokenize"]
    codes = [one.plan["tokenize"].output.read_array("test_tokens") for one in (first, second)]
    np.testing.assert_array_equal(*codes)
    # A run with the file keeps to that file.
    whole = Path(file).read_bytes()
    write_tokenizer(Pixel(levels=5), {}, file, overwrite=True)
    ways = (second.save_tokenizer, lambda place: export_tokenizer(second.folder, place))
    changed = r"the weights of \[tokenizer\] are not those that the run .* used: .* Put the file back that has the SHA-256"
    for way in ways:
        with pytest.raises(WeightsError, match=changed):
            way(tmp_path / "three.safetensors")
    Path(file).unlink()
    for way in ways:
        with pytest.raises(WeightsError, match=r"there is no file .*one\.safetensors\. Check the place"):
            way(tmp_path / "three.safetensors")
    assert not (tmp_path / "three.safetensors").exists()
    Path(file).write_bytes(whole)
    for number, way in enumerate(ways):
        assert Path(way(tmp_path / f"again{number}.safetensors")).read_bytes() == whole


def test_it_is_written_of_a_run_a_bundle_and_a_loaded_model(small_finished, tmp_path):
    pipeline = rarkit.load(small_finished, device="cpu")
    bundle = pipeline.save(tmp_path / "bundle.safetensors")
    files = [
        small_finished.save_tokenizer(tmp_path / "a.safetensors"),
        pipeline.save_tokenizer(tmp_path / "b.safetensors"),
        export_tokenizer(bundle, tmp_path / "c.safetensors"),
        export_tokenizer(small_finished.folder, tmp_path / "d.safetensors"),
    ]
    assert len({Exported(weights=file).content() for file in files}) == 1
    model = Exported(weights=files[0]).build({}, "cpu")
    images_BHWC = torch.from_numpy(small_finished.samples[:5])
    np.testing.assert_array_equal(model.encode(images_BHWC).numpy(), pipeline.encode(small_finished.samples[:5]))


def test_what_was_not_trained_is_not_written(small_recipe, tmp_path):
    recipe = rarkit.load_recipe(small_recipe)
    plan = rarkit.plan(recipe, str(tmp_path / "store"))
    run = rarkit.Run(plan, tmp_path / "runs/small", (), 0.0)
    with pytest.raises(rarkit.RarkitError, match="has not what its tokenizer learned: it stopped before"):
        run.save_tokenizer(tmp_path / "one.safetensors")


def test_a_plan_says_what_is_the_matter_with_the_file(small_recipe, tmp_path):
    recipe = rarkit.load_recipe(small_recipe).replace({"tokenizer": {"weights": str(tmp_path / "gone.safetensors")}})
    plan = rarkit.plan(recipe, str(tmp_path / "store"))
    assert {stage.action for stage in plan.stages} == {"blocked"}
    assert "gone.safetensors" in estimate(plan).missing["tokenizer"]
    with pytest.raises(WeightsError, match=r"there is no file .*gone\.safetensors"):
        rarkit.run(recipe, str(tmp_path / "store"), runs=tmp_path / "runs", quiet=True)
