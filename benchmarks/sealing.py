"""What checking costs: the time that a run spends on digests of what it writes and reads.

    python benchmarks/sealing.py [--rows 1281167] [--batch 2048] [--folder DIR] [--save]

- Runs recipes/digits.toml, and counts for each stage the seconds that its threads spend in SHA-256, whichever thread it is, and
  whether or not the stage waits for it: an upper bound of what checking costs.
- Writes tokens of as many images as ImageNet has, 256 of 16 bits each, and reads epochs of random batches: the first checks chunks
  at their first touch, a later one reads what has been checked. A training reads hundreds of epochs, and checks once.
- Hashes with SHA-256 and its rivals, and says at how many samples a second (256 × 256 × 3) each would take 2 % of a process's time.

Exits with 1 where checking takes more than 2 % of tokenize, train or sample. `--save` writes benchmarks/results/sealing.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

import rarkit
from rarkit.cache import digests, output_folder
from rarkit.cache.chunk_layout import rows_per_block
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import output_at

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
MOST = 0.02
IMAGE_BYTES, LENGTH, CODES = 256 * 256 * 3, 256, 1024
HASHES = ("sha256", "blake2b", "blake2s", "sha1", "sha512")


def of_a_run(folder: Path) -> list[dict[str, Any]]:
    """Seconds of each stage of the digits recipe, and of hashing in it."""
    spent: dict[str, list[float]] = defaultdict(list)
    plain, stage = digests.sha256_of, ""

    def timed(data: Any) -> str:
        began = time.perf_counter()
        digest = plain(data)
        spent[stage].append(time.perf_counter() - began)
        return digest

    for module in (digests, output_folder):
        module.sha256_of = timed  # type: ignore[attr-defined]
    recipe = rarkit.load_recipe(str(ROOT / "recipes/digits.toml"))
    rows = []
    for planned in rarkit.plan(recipe, str(folder / "store")).stages:
        stage = planned.name
        done = rarkit.run(recipe, str(folder / "store"), until=stage, device="cpu", runs=folder / "runs", quiet=True)
        seconds = next(result.seconds for result in done.results if result.name == stage)
        assert seconds is not None
        share = sum(spent[stage]) / seconds
        rows.append({"stage": stage, "seconds": seconds, "hashing_seconds": sum(spent[stage]), "share": share})
    for module in (digests, output_folder):
        module.sha256_of = plain  # type: ignore[attr-defined]
    return rows


def of_reading(folder: Path, rows: int, batch: int) -> dict[str, Any]:
    """Seconds of an epoch of random batches: the first, and one of chunks that have been checked."""
    output, random = output_at(str(folder / "tokens"), "tokenize"), np.random.default_rng(0)
    with output.writing({"identity": {}, "upstream": {}, "grid": [16, 16]}):
        output.create("train_tokens", (rows, LENGTH), np.uint16, rows_per_block(rows, 2 * LENGTH))
        for block in range(output.layout("train_tokens").blocks):
            start, stop = output.block_rows("train_tokens", block)
            output.write_block(block, train_tokens=random.integers(0, CODES, (stop - start, LENGTH), dtype=np.uint16))
        output.finish()
    # A reader of the page cache: both epochs find the files there.
    assert output.verify() is None
    record = output.begun()
    reader, order = RowReader(output, "train_tokens"), random.permutation(rows)

    def epoch() -> float:
        began = time.perf_counter()
        for first in range(0, rows, batch):
            reader.rows(order[first : first + batch])
        return time.perf_counter() - began

    checked, unchecked = epoch(), epoch()
    chunks = output.layout("train_tokens").blocks
    sizes = {"chunks": chunks, "record_bytes": len(json.dumps(record.as_json(), indent=2))}
    return {"first_epoch_seconds": checked, "later_epoch_seconds": unchecked, "bytes": rows * 2 * LENGTH, **sizes}


def of_hashes() -> list[dict[str, Any]]:
    """Bytes a second of each hash, and the samples a second of which it takes 2 %."""
    data, rows = np.random.default_rng(0).bytes(2**24), []
    for name in HASHES:
        times = []
        for _ in range(10):
            began = time.perf_counter()
            hashlib.new(name, data).digest()
            times.append(time.perf_counter() - began)
        rate = len(data) / min(times)
        rows.append({"hash": name, "bytes_a_second": rate, "samples_a_second_at_2_percent": MOST * rate / IMAGE_BYTES})
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_281_167)
    arguments.add_argument("--batch", type=int, default=2048)
    arguments.add_argument("--folder", type=Path, help="temporary folder with room for 1 GB; the system's by default")
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/sealing.json")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rarkit-sealing-", dir=options.folder) as scratch:
        hashes, stages = of_hashes(), of_a_run(Path(scratch))
        reading = of_reading(Path(scratch), options.rows, options.batch)
    for row in stages:
        print("{stage:10} {seconds:7.2f} s, of it {hashing_seconds:.4f} s of hashing: {share:.2%}".format(**row))
    print(
        "reading    {first_epoch_seconds:.2f} s for the first epoch, {later_epoch_seconds:.2f} s for a later one".format(**reading)
    )
    for row in hashes:
        rate = row["bytes_a_second"] / 1e9
        print(f"{row['hash']:10} {rate:.2f} GB/s: 2 % at {row['samples_a_second_at_2_percent']:,.0f} samples a second")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        about = {name: value for name, value in vars(options).items() if name != "folder"} | {"page_cache": "warm"}
        result = {"machine": machine(), "options": about, "stages": stages, "reading": reading, "hashes": hashes}
        (RESULTS / "sealing.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(any(row["share"] > MOST for row in stages if row["stage"] in ("tokenize", "train", "sample")))


if __name__ == "__main__":
    main()
