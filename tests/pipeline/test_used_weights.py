"""Weights that have changed since a run are refused, by all that its parts said of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rarkit
from rarkit.errors import WeightsError
from rarkit.pipeline.used_weights import check_weights, contents
from rarkit.recipe.load import parse_recipe
from rarkit.registry.loader import parts
from rarkit.tokenizers.exported import write_tokenizer
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from rarkit.tokenizers.patch_kmeans import PatchKMeans

STATE = {"codebook": np.random.default_rng(0).uniform(0, 255, (6, 4)).astype(np.float32)}
RUN = Path("runs/one")


@pytest.fixture
def recipe(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "vqgan.safetensors")
    tables = {
        "title": "",
        "dataset": {"name": "generated"},
        "tokenizer": {"name": "maskgit_vqgan", "weights": str(tmp_path / "vqgan.safetensors")},
        "model": {"preset": "rar_b", "weights": str(tmp_path / "vqgan.safetensors")},
        "sample": {},
    }
    return parse_recipe(tables, parts(), "one.toml")


def test_the_same_file_is_taken_and_another_refused(recipe, tmp_path):
    file = tmp_path / "vqgan.safetensors"
    used = contents([{"tokenizer": recipe.tokenizer.identity(), "seed": 0}, {"model": recipe.model.identity()}])
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert used == {"tokenizer": sha256, "model": sha256}
    check_weights(recipe, used, RUN)
    save_file({"a": torch.ones(1)}, file)
    for table in used:
        with pytest.raises(WeightsError, match=rf"\[{table}\] are not those that the run runs/one used: .* {sha256}, or run"):
            check_weights(recipe, used, RUN, [table])
    # Of what no stage and no receipt has noted, nothing is known but whether it is there.
    check_weights(recipe, {}, RUN)
    file.unlink()
    with pytest.raises(WeightsError, match=r"the weights of \[model\] are missing: there is no file"):
        check_weights(recipe, {}, None)


def test_what_lies_beside_the_file_counts_where_the_part_says_so(recipe, monkeypatch, tmp_path):
    beside = {"sides": (1, 2)}
    monkeypatch.setattr(MaskGITVQGAN, "content", lambda self: {"config": dict(beside), "weights": "0"})
    # As a receipt has it.
    used = {"tokenizer": {"weights": "0", "config": {"sides": [1, 2]}}}
    check_weights(recipe, used, RUN)
    # A receipt of a run whose stages never read the tokenizer has the file's SHA-256.
    check_weights(recipe, {"tokenizer": hashlib.sha256((tmp_path / "vqgan.safetensors").read_bytes()).hexdigest()}, RUN)
    beside["sides"] = (1, 3)
    with pytest.raises(WeightsError, match=r"vqgan\.safetensors has changed since\. Put back what was there, or run the"):
        check_weights(recipe, used, RUN)


def test_a_loaded_model_is_not_saved_with_another_tokenizer(small_recipe, tmp_path):
    """A bundle has the tokenizer that is in its file when the bundle is written."""
    file = write_tokenizer(PatchKMeans(codes=6, iterations=3), STATE, str(tmp_path / "one.safetensors"), channels=1)
    recipe = rarkit.load_recipe(small_recipe, ["train.steps=1"], unset=["evaluate"]).replace({"tokenizer": {"weights": file}})
    run = rarkit.run(recipe, str(tmp_path / "store"), runs=tmp_path / "runs", device="cpu", quiet=True)
    pipelines = [rarkit.load(source, device="cpu") for source in (run, run.folder)]
    write_tokenizer(PatchKMeans(codes=6, iterations=3), {"codebook": STATE["codebook"] / 2}, file, channels=1, overwrite=True)
    uses = [use for one in pipelines for use in (one.save, one.save_tokenizer)]
    for use in [*uses, lambda _: rarkit.load(run, device="cpu"), lambda _: rarkit.load(run.folder, device="cpu")]:
        with pytest.raises(WeightsError, match=r"the weights of \[tokenizer\] are not those that the run"):
            use(tmp_path / "bundle.safetensors")
