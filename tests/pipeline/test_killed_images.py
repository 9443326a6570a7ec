"""Tokenizing a folder of photographs, killed with SIGKILL and run again, gives the same bits and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rarkit import load_recipe, plan, run

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
# Kills itself with SIGKILL in the middle of the second chunk: its tokens are written, its labels are not.
KILLED = """
import os, signal, sys
from rarkit import load_recipe, run
from rarkit.cache.output import StageOutput

plain = StageOutput.write_block

def killing(self, block, **rows):
    if block == 1:
        name, tokens = next(iter(rows.items()))
        plain(self, block, **{name: tokens})
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self, block, **rows)

StageOutput.write_block = killing
if __name__ == "__main__":
    run(load_recipe(sys.argv[1]), sys.argv[2], until="tokenize", device="cpu", runs=sys.argv[3], quiet=True)
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
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, script, recipe_path, tmp_path / "resumed", tmp_path / "runs"]
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.wait(timeout=60) == -signal.SIGKILL
    resumed = plan(recipe, str(tmp_path / "resumed"))["tokenize"]
    assert resumed.reason == "resumes an interrupted run"
    assert resumed.output.missing_blocks(["train_tokens", "train_labels"]) == [1, 2]
    run(recipe, str(tmp_path / "resumed"), until="tokenize", device="cpu", runs=tmp_path / "runs", quiet=True)
    assert resumed.output.verify() is None
    assert files(resumed.output) == files(expected)
    assert len(files(expected)) == 8
    tokens = expected.read_array("train_tokens")
    assert tokens.shape == (IMAGES, 16)
    assert len(np.unique(tokens)) > 8
    # The processes that decoded notice that their parent is gone.
    until = time.monotonic() + 20
    while in_session(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert in_session(process.pid) == 0
