"""Tokenizing a folder of photographs, killed with SIGKILL and run again, gives the same bits and leaves no process behind."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rarkit import load_recipe, plan, run
from tests.pipeline.killed import killed_in_a_chunk
from tests.processes import HANGS_AFTER, end, start

IMAGES = 600
"""Three chunks of the store."""
RECIPE = """
title = "Photographs"
[dataset]
name = "image_folder"
path = "images"
test = ""
size = 16
[tokenizer]
name = "maskgit_vqgan"
weights = "stand-in.safetensors"
hidden_channels = 32
channel_mult = [1, 1, 2]
num_res_blocks = 1
z_channels = 8
codes = 64
batch_size = 7
[model]
hidden_size = 16
depth = 1
num_heads = 2
[train]
steps = 1
batch_size = 1
"""


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory):
    from rarkit.files.weights import write_tensors
    from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN

    folder = tmp_path_factory.mktemp("photographs")
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 20, 17, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        place = folder / "images/train" / f"class {index % 3}" / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    network = MaskGITVQGAN(
        weights=None, hidden_channels=32, channel_mult=(1, 1, 2), num_res_blocks=1, z_channels=8, codes=64
    ).network()
    write_tensors(network.state_dict(), folder / "stand-in.safetensors", {})
    (folder / "photographs.toml").write_text(RECIPE)
    return folder / "photographs.toml"


def files(output):
    """The output's files by relative path, except the record, which has times."""
    root = Path(output.path)
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path != root / "zarr.json"
    }


def in_session(session):
    """The number of live processes in a session."""
    states = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        states += [fields[0]] if int(fields[3]) == session and fields[0] != "Z" else []
    return len(states)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_among_photographs_and_run_again(recipe_path, tmp_path):
    recipe = load_recipe(str(recipe_path), ["dataset.workers=0"])
    whole = run(recipe, str(tmp_path / "whole"), until="tokenize", device="cpu", runs=tmp_path / "runs", quiet=True)
    expected = whole.plan["tokenize"].output
    process = start(tmp_path, killed_in_a_chunk, str(recipe_path), str(tmp_path / "resumed"), str(tmp_path / "runs"))
    killed = end(tmp_path, process)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = plan(recipe, str(tmp_path / "resumed"))["tokenize"]
    done = resumed.output.layout("train_tokens").rows
    assert resumed.reason == f"goes on after train {done:,} of {IMAGES:,} images"
    assert resumed.output.missing_blocks(["train_tokens", "train_labels"]) == [1, 2]
    run(recipe, str(tmp_path / "resumed"), until="tokenize", device="cpu", runs=tmp_path / "runs", quiet=True)
    assert resumed.output.verify() is None
    assert files(resumed.output) == files(expected)
    assert len(files(expected)) == 8
    tokens = expected.read_array("train_tokens")
    assert tokens.shape == (IMAGES, 16)
    assert len(np.unique(tokens)) > 8
    # The processes that decoded notice that their parent is gone.
    until = time.monotonic() + HANGS_AFTER
    while in_session(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert in_session(process.pid) == 0
