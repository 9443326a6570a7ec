"""Tokenizing ten thousand images: a run that is killed and resumed must leave the same store, bit by bit, as an undisturbed one.

    python benchmarks/tokenize_resume.py [--images 10000] [--size 256] [--kill-at 0.5] [--seed 0]

Writes random JPEG files to class folders, and a MaskGIT-VQGAN with random weights at a quarter of the released width. Tokenizes the
images with `rarkit run --until tokenize`: once undisturbed, and once killed from outside with SIGKILL at an arbitrary moment and
run again. Compares every file of both outputs (in the record, all but the times), checks that no process of the killed run is left,
and writes benchmarks/results/tokenize_resume.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from PIL import Image

from rarkit import load_recipe, plan
from rarkit.cache.output import StageOutput
from rarkit.files.weights import write_tensors
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN

RESULTS = Path(__file__).parent / "results"
CLASSES = 10
# At this width the activations of a single image fit the processor's cache.
STAND_IN = {"hidden_channels": 32, "channel_mult": (1, 1, 1, 1, 1), "num_res_blocks": 1, "z_channels": 32, "codes": 1024}
TIMES = ("started", "finished")
RECIPE = """
title = "Tokenizing stand-ins"
[dataset]
name = "image_folder"
path = "images"
test = ""
size = {size}
workers = 1

[tokenizer]
name = "maskgit_vqgan"
weights = "stand-in.safetensors"
batch_size = 1
{network}

[model]
hidden_size = 32
depth = 1
num_heads = 2

[train]
steps = 1
batch_size = 1
"""


def make(folder: Path, images: int, size: int, seed: int) -> Path:
    """Writes images (smooth random colours, not square, slightly larger than ``size``), weights and recipe; returns its path."""
    random = np.random.default_rng(seed)
    for index in range(images):
        place = folder / "images/train" / f"class {index % CLASSES}" / f"{index:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        rough = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        rough.resize((size * 4 // 3, size + 10), Image.Resampling.BICUBIC).save(place, quality=90)
    write_tensors(MaskGITVQGAN(weights=None, **STAND_IN).network().state_dict(), folder / "stand-in.safetensors", {})
    network = "\n".join(f"{name} = {json.dumps(value)}" for name, value in STAND_IN.items())
    recipe = folder / "tokenize.toml"
    recipe.write_text(RECIPE.format(size=size, network=network))
    return recipe


def started(recipe: Path, store: Path) -> subprocess.Popen[bytes]:
    """Starts ``rarkit run`` in a session of its own, which identifies its child processes."""
    command = [Path(sys.executable).with_name("rarkit"), "run", recipe, "--until", "tokenize"]
    command += ["--store", store, "--device", "cpu", "--runs", store / "runs"]
    return subprocess.Popen(list(map(str, command)), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_whole(recipe: Path, store: Path) -> float:
    """Seconds of an undisturbed run."""
    began = time.perf_counter()
    code = started(recipe, store).wait()
    assert code == 0, f"rarkit run exited with {code}"
    return time.perf_counter() - began


def run_killed(recipe: Path, output: StageOutput, store: Path, share: float) -> dict[str, Any]:
    """Kills a run while it works on the chunk after ``share`` of all chunks; returns what it left."""
    began = time.perf_counter()
    process = started(recipe, store)
    while not (output.exists() and _chunks(output)[0] >= max(1, share * _chunks(output)[1])):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.2)
        output.refresh()
    # On average half a chunk later, so that some work is lost.
    time.sleep(0.5 * (time.perf_counter() - began) / _chunks(output)[0])
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    seconds = time.perf_counter() - began
    written, total = _chunks(output)
    assert not output.record().complete
    time.sleep(5)
    return {"seconds": seconds, "chunks_written": written, "chunks": total, "processes_left_over": _of_session(process.pid)}


def _chunks(output: StageOutput) -> tuple[int, int]:
    """The number of complete blocks, and of all blocks."""
    output.refresh()
    arrays = list(output.record().arrays)
    total = output.layout(arrays[0]).blocks if arrays else 1
    return (total - len(output.missing_blocks(arrays)), total) if arrays else (0, 1)


def _of_session(session: int) -> int:
    """The number of live processes in a session."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:  # The process has ended
            continue
        count += int(fields[3]) == session and fields[0] != "Z"
    return count


def contents(output: StageOutput) -> dict[str, bytes]:
    """All files of an output by path; the record without its times."""
    files = {str(path.relative_to(output.path)): path.read_bytes() for path in Path(output.path).rglob("*") if path.is_file()}
    output.refresh()
    record = {name: value for name, value in output.record().as_json().items() if name not in TIMES}
    assert record["complete"]
    return files | {"zarr.json": json.dumps(record, sort_keys=True).encode()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--kill-at", type=float, default=0.5, help="share of chunks after which to kill the run")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rarkit-benchmark-") as scratch:
        folder = Path(scratch)
        began = time.perf_counter()
        recipe_path = make(folder, options.images, options.size, options.seed)
        print(f"{options.images:,} JPEG files made in {time.perf_counter() - began:.0f} s", flush=True)
        recipe = load_recipe(str(recipe_path))
        whole, resumed = (plan(recipe, str(folder / name))["tokenize"].output for name in ("whole", "resumed"))
        undisturbed = run_whole(recipe_path, folder / "whole")
        rate = options.images / undisturbed
        print(f"undisturbed: {undisturbed:.1f} s, {rate:.1f} images/s, startup included", flush=True)
        killed = run_killed(recipe_path, resumed, folder / "resumed", options.kill_at)
        print("killed after {seconds:.1f} s with {chunks_written} of {chunks} chunks".format(**killed), flush=True)
        print(f"processes left 5 s later: {killed['processes_left_over']}", flush=True)
        planned = plan(recipe, str(folder / "resumed"))["tokenize"].reason
        again = run_whole(recipe_path, folder / "resumed")
        print(f"run again ({planned}): {again:.1f} s", flush=True)
        expected, actual = contents(whole), contents(resumed)
        row = {
            "images": options.images,
            "undisturbed_seconds": undisturbed,
            "images_per_second": rate,
            "killed": killed,
            "resumed_seconds": again,
            "files": len(expected),
            "bytes": sum(map(len, expected.values())),
            "distinct_codes": len(np.unique(whole.read_array("train_tokens"))),
            "same": expected == actual,
            "verified": [output.verify() for output in (whole, resumed)] == [None, None],
        }
    print("{files} files, {bytes:,} bytes, {distinct_codes} codes in use; identical: {same}".format(**row))
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": vars(options) | {"tokenizer": STAND_IN}, "rows": [row]}
    (RESULTS / "tokenize_resume.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if row["same"] and row["verified"] and not killed["processes_left_over"] else 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
