"""Files that are not what their names say are told what they are, wherever they are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from rarkit import load_recipe, plan
from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.npz import Npz
from rarkit.datasets.preparation import load_rgb
from rarkit.errors import DatasetError, RecipeError, WeightsError
from rarkit.features.inception import Inception
from rarkit.features.reference_batch import ReferenceBatch
from rarkit.files.recognition import HEAD, PYTORCH, content_of, recognised
from rarkit.files.weight_files import FORMATS
from rarkit.models import load_rar
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from tests.models.rar.small import TINY, lively
from tests.rules import ROOT

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 12\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>"


def zipped(name=b"notes.txt"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name.decode(), b"nothing")
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


def written(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def torch_file(**options):
    return written(lambda file: torch.save(lively().state_dict(), file, **options))


PNG = written(lambda file: Image.new("RGB", (8, 8)).save(file, "PNG"))
WHAT = {
    "an empty file": b"",
    "a Git LFS pointer": LFS,
    "a git-annex pointer": b"/annex/objects/SHA256E-s1048576--4d7a2146.bin\n",
    "a web page": PAGE,
    "XML text": b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    "text that begins with 'Invalid username or password.'": b"Invalid username or password.\n",
    'text that begins with \'{"error"': b'{"error":"Repository not found"}',
    "a zip archive": zipped(),
    "a tar archive": tarred(),
    "compressed with gzip": gzip.compress(b"x"),
    "compressed with bzip2": bz2.compress(b"x"),
    "compressed with xz": lzma.compress(b"x"),
    "a Python pickle": pickle.dumps({"a": np.zeros(3)}),
    "a NumPy .npz file": written(lambda file: np.savez(file, images=np.zeros(3))),
    "a single NumPy array": written(lambda file: np.save(file, np.zeros(3))),
    "a safetensors file": save(lively().state_dict()),
    "a PyTorch file": torch_file(),
    "a PNG image": PNG,
}
ids = {"ids": lambda value: value if isinstance(value, str) else ""}


@pytest.mark.parametrize(("what", "data"), WHAT.items(), **ids)
def test_it_is_recognised(tmp_path, what, data):
    (tmp_path / "file").write_bytes(data)
    content = content_of(tmp_path / "file")
    assert content is not None
    assert content.what.startswith(what)
    assert content.cure.endswith(".")


def test_files_of_older_pytorch_are_recognised():
    assert recognised(torch_file(_use_new_zipfile_serialization=False)[:HEAD]) is PYTORCH


@given(st.binary(max_size=2 * HEAD))
def test_any_bytes_are_taken(data):
    content = recognised(data[:HEAD])
    assert content is None or (content.what and "\n" not in content.what and content.cure.endswith("."))


@given(st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=2 * HEAD))
def test_text_is_recognised_even_if_cut_inside_a_letter(text):
    assert recognised(text.encode()[:HEAD]) is not None


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("what", "data"), WHAT.items(), **ids)
def test_weights_that_are_something_else(tmp_path, what, data, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(data)
    right = "a safetensors file" if suffix == ".safetensors" else "a PyTorch file"
    if what == right:
        assert load_rar(path, TINY).config == TINY
        return
    parts = {
        "model": lambda: load_rar(path, TINY),
        "tokenizer": lambda: MaskGITVQGAN(weights=str(path)).network(),
        "inception": lambda: Inception(weights=str(path)).network(),
    }
    for name in parts if (what, suffix) == ("a Git LFS pointer", ".bin") else ["model"]:
        with pytest.raises(WeightsError) as caught:
            parts[name]()
        message = str(caught.value)
        assert f"model{suffix} is {what}" in message
        assert f", not {right}. " in message
        assert "weights_only" not in message
    if what == "a Git LFS pointer":
        assert "git lfs pull" in message
    if what in {"a safetensors file", "a PyTorch file"}:
        assert "Rename it to end in" in message


@pytest.mark.parametrize("what", ["a Git LFS pointer", "a git-annex pointer", "a web page", "an empty file"])
def test_plans_see_what_only_stands_for_weights(tmp_path, what):
    (tmp_path / "inception.pth").write_bytes(WHAT[what])
    features = f'{{ name = "inception", weights = "{tmp_path}/inception.pth" }}'
    recipe = load_recipe(str(ROOT / "recipes/digits.toml"), [f"evaluate.features={features}"])
    stages = plan(recipe, "memory://nothing")
    assert f"inception.pth is {what}" in str(stages.obstacle)


def test_a_copy_in_the_cache_is_said_to_be_removed(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.filesystem("memory").pipe("/there/model.bin", LFS)
    with pytest.raises(WeightsError, match=r"cache/rarkit/weights/.* is a Git LFS pointer.*Remove this copy first"):
        load_rar("memory://there/model.bin", TINY)


OLD = torch_file(_use_new_zipfile_serialization=False)


@pytest.mark.parametrize("data", [b"\x00\x01junk" * 40, torch_file()[:-300], OLD[:-300]], ids=["junk", "cut", "old, cut"])
def test_no_message_passes_on_torchs_advice(tmp_path, data):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(WeightsError, match=r"is damaged or not a PyTorch weight file: .*Fetch it again\.") as caught:
        load_rar(tmp_path / "model.bin", TINY)
    assert "weights_only" not in str(caught.value)


def test_a_torchscript_program_is_no_weights(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "model.pt"))
    with pytest.raises(WeightsError, match=r"model\.pt is a TorchScript program, not a PyTorch file") as caught:
        load_rar(tmp_path / "model.pt", TINY)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("what", ["a Git LFS pointer", "a web page", "an empty file"])
def test_other_files_say_it_too(tmp_path, what):
    data = WHAT[what]
    (tmp_path / "train" / "cat").mkdir(parents=True)
    for name in ("images.npz", "train/cat/1.png", "recipe.toml"):
        (tmp_path / name).write_bytes(data)
    reads = {
        "images.npz": lambda: Npz(path=str(tmp_path / "images.npz")).info(),
        "images.npz ": lambda: ReferenceBatch(str(tmp_path / "images.npz")).content(),
        "1.png": lambda: load_rgb(data, "1.png"),
        "train/cat/1.png": lambda: ImageFolder(path=str(tmp_path), size=8).open("train").read(),
    }
    for name, read in reads.items():
        with pytest.raises(DatasetError, match=f"{name.strip()} .*[iI](t i)?s {what}"):
            read()
    if data:
        with pytest.raises(RecipeError, match=rf"recipe\.toml is not valid TOML.*It is {what}"):
            load_recipe(str(tmp_path / "recipe.toml"))


def test_an_array_named_npz_is_told_how_to_become_one(tmp_path):
    (tmp_path / "images.npz").write_bytes(WHAT["a single NumPy array"])
    with pytest.raises(DatasetError, match=r"It is a single NumPy array \(\.npy\)\. Write an \.npz file with numpy\.savez"):
        Npz(path=str(tmp_path / "images.npz")).info()
