"""Files of weights, wherever they are: fetched once, read from the local copy, and named in the receipt with their checksums."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import sys
import threading

import fsspec
import pytest

from rarkit import load_recipe, plan, run
from rarkit.errors import WeightsError
from rarkit.files.weight_files import local_copy
from rarkit.files.weights import checksum, write_tensors
from rarkit.models import RAR, RARConfig, load_rar, save_rar
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN

NETWORK = {"hidden_channels": 32, "channel_mult": (1, 1, 1), "num_res_blocks": 1, "z_channels": 8, "codes": 16}
SIZES = RARConfig(hidden_size=16, depth=1, num_heads=2, mlp_hidden_size=64, seq_len=16, codebook_size=16, num_classes=2)
RECIPE = """
title = "Released elsewhere"
[dataset]
name = "generated"
height = 16
width = 16
class_names = ["a", "b"]
[tokenizer]
name = "maskgit_vqgan"
weights = "{tokenizer}"
hidden_channels = 32
channel_mult = [1, 1, 1]
num_res_blocks = 1
z_channels = 8
codes = 16
[model]
hidden_size = 16
depth = 1
num_heads = 2
weights = "{model}"
[sample]
per_class = 2
"""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def planted(model, tokenizer):
    """Random weights at both places; the bytes of each."""
    save_rar(RAR(SIZES, seed=0), model)
    write_tensors(MaskGITVQGAN(weights=None, **NETWORK).network().state_dict(), tokenizer, {})
    return [fsspec.open(place).open().read() for place in (model, tokenizer)]


def recipe_of(path, model, tokenizer):
    path.write_text(RECIPE.format(model=model, tokenizer=tokenizer))
    return load_recipe(str(path))


def test_the_receipt_has_the_checksums_of_all_weights(tmp_path, s3_bucket, cache_folder):
    model, tokenizer = "memory://released/rar.bin", f"s3://{s3_bucket}/released/vqgan.safetensors"
    data = planted(model, tokenizer)
    recipe = recipe_of(tmp_path / "elsewhere.toml", model, tokenizer)
    done = run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    sums = [hashlib.sha256(content).hexdigest() for content in data]
    receipt = json.loads((done.folder / "receipt.json").read_text())
    assert receipt["weights"] == {
        "model": {"file": model, "sha256": sums[0]},
        "tokenizer": {"file": tokenizer, "sha256": sums[1]},
    }
    identity = receipt["stages"][0]["identity"]
    assert [identity[table]["content"] for table in ("model", "tokenizer")] == sums
    assert sorted(path.read_bytes() for path in (cache_folder / "rarkit/weights").rglob("*") if path.is_file()) == sorted(data)


def test_weights_are_known_by_content_wherever_they_are(tmp_path):
    data = planted(tmp_path / "rar.bin", tmp_path / "vqgan.safetensors")
    there = recipe_of(tmp_path / "one.toml", "rar.bin", "vqgan.safetensors")
    fsspec.filesystem("memory").pipe({"/moved/rar.bin": data[0], "/moved/vqgan.safetensors": data[1]})
    moved = recipe_of(tmp_path / "two.toml", "memory://moved/rar.bin", "memory://moved/vqgan.safetensors")
    store = str(tmp_path / "store")
    assert plan(there, store)["sample"].output.fingerprint == plan(moved, store)["sample"].output.fingerprint
    save_rar(RAR(SIZES, seed=1), "memory://moved/rar.bin")
    assert plan(there, store)["sample"].output.fingerprint != plan(moved, store)["sample"].output.fingerprint


def test_a_run_that_names_no_weights_says_so(finished):
    assert json.loads((finished.folder / "receipt.json").read_text())["weights"] == {}


def test_s3_files_are_fetched_once_for_each_version(s3_bucket, cache_folder, monkeypatch):
    place = f"s3://{s3_bucket}/released/again.safetensors"
    save_rar(RAR(SIZES, seed=0), place)
    first = checksum(place)
    filesystem = fsspec.filesystem("s3")
    with monkeypatch.context() as patch:
        patch.setattr(type(filesystem), "get_file", lambda *_, **__: pytest.fail("fetched again"))
        assert load_rar(place).config == SIZES
    save_rar(RAR(SIZES, seed=1), place)
    filesystem.invalidate_cache()
    assert checksum(place) != first
    assert len([path for path in cache_folder.rglob("*") if path.is_file()]) == 2
    with pytest.raises(WeightsError, match=r"there is no \S*nowhere\.bin\. Check the place"):
        checksum(f"s3://{s3_bucket}/nowhere.bin")


def test_http_files_are_fetched_once(tmp_path, cache_folder):
    (tmp_path / "site").mkdir()
    save_rar(RAR(SIZES, seed=0), tmp_path / "site/rar.bin")
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.command)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        place = f"http://127.0.0.1:{server.server_address[1]}/rar.bin"
        assert load_rar(place, SIZES).config == SIZES
        [copy] = [path for path in cache_folder.rglob("*") if path.is_file()]
        assert copy.read_bytes() == (tmp_path / "site/rar.bin").read_bytes()
        asked.clear()
        assert local_copy(place) == copy
        assert "GET" not in asked
        with pytest.raises(WeightsError, match=r"there is no \S*nowhere\.bin\. Check the place"):
            checksum(place.replace("rar.bin", "nowhere.bin"))
    finally:
        server.shutdown()
        server.server_close()


def test_the_hub_without_its_extra(tmp_path, monkeypatch):
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(_registry, "hf", raising=False)
    hint = r'hf://yucornetto/RAR/rar_b\.bin needs a library that is not installed: pip install "rarkit\[hub\]"'
    with pytest.raises(WeightsError, match=hint):
        load_rar("hf://yucornetto/RAR/rar_b.bin", "rar_b")
    planted(tmp_path / "rar.bin", tmp_path / "vqgan.safetensors")
    recipe = recipe_of(tmp_path / "hub.toml", "hf://yucornetto/RAR/rar_b.bin", "vqgan.safetensors")
    with pytest.raises(WeightsError, match=hint):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "runs").exists()


def test_a_file_that_changes_has_another_checksum(tmp_path):
    for content in (b"one", b"another", b"a third"):
        (tmp_path / "any.bin").write_bytes(content)
        assert checksum(tmp_path / "any.bin") == hashlib.sha256(content).hexdigest()
        assert checksum(tmp_path / "any.bin") == checksum(tmp_path / "any.bin")
