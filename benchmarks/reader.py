"""Reading random batches of tokens: rarkit's store against JSON lines.

    python benchmarks/reader.py [--rows 1000000] [--length 256] [--batch 256] [--batches 400] [--folder DIR]

Writes random tokens to a store (uint16 chunks, as the tokenize stage does) and exports them as JSON lines in the published format.
Reads the same random batches with each reader in turn, 20 batches at a time, in one process, and checks that all readers return the
same tokens:

- rarkit: `rarkit.cache.row_reader.RowReader`, which memory-maps the chunks;
- indexed lines: the fastest reader for JSON lines, with an index of line offsets, the file mapped, and `json.loads` of each line;
- lines in memory: `linecache` keeps the whole file in each process; samples are parsed one by one and stacked, as published;
- scanned lines: no index; each batch reads the file from its start to the last line needed (fewer batches).

The page cache is warm, because all files have just been written and are read once first: this compares readers, not disks. Writes
benchmarks/results/reader.json.
"""

from __future__ import annotations

import argparse
import json
import linecache
import mmap
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray

from rarkit.cache.chunk_layout import rows_per_block
from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import output_at
from rarkit.cache.token_lines import LABELS, TOKENS, export_tokens

RESULTS = Path(__file__).parent / "results"
CODES, CLASSES, SCANS = 1024, 1000, 2
RUN = 20  # Batches
Read = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def write_store(folder: Path, rows: int, length: int) -> StageOutput:
    """Writes random tokens, block by block."""
    output, random = output_at(str(folder), "tokenize"), np.random.default_rng(0)
    with output.writing({"identity": {}, "upstream": {}, "grid": [1, length]}):
        output.create(TOKENS, (rows, length), np.uint16, rows_per_block(rows, 2 * length))
        output.create(LABELS, (rows,), np.int32, rows_per_block(rows, 2 * length))
        for block in range(output.layout(TOKENS).blocks):
            start, stop = output.block_rows(TOKENS, block)
            tokens_NL = random.integers(0, CODES, (stop - start, length), dtype=np.uint16)
            output.write_block(block, **{TOKENS: tokens_NL, LABELS: random.integers(0, CLASSES, stop - start, dtype=np.int32)})
        output.finish(grid=[1, length])
    return output


def indexed(lines: Path) -> Read:
    """A reader with an index of line offsets."""
    with lines.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    sizes = [len(line) for line in iter(mapped.readline, b"")]
    edges = np.concatenate([[0], np.cumsum(sizes)]).tolist()

    def read(index_B: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([json.loads(mapped[edges[row] : edges[row + 1]])["tokens"] for row in index_B.tolist()])

    return read


def kept(lines: Path) -> Read:
    """Reads as the published training does: all lines in memory, each sample a tensor, a batch a stack of samples."""

    def sample(row: int) -> torch.Tensor:
        return torch.tensor(json.loads(linecache.getline(str(lines), row + 1).strip())["tokens"])

    def read(index_B: NDArray[np.int64]) -> NDArray[np.int64]:
        return torch.stack([sample(row) for row in index_B.tolist()]).numpy()

    return read


def scanned(lines: Path) -> Read:
    """A reader that scans the file and parses only the lines of the batch."""

    def read(index_B: NDArray[np.int64]) -> NDArray[np.int64]:
        rows, last, tokens = set(index_B.tolist()), int(index_B.max()), {}
        with lines.open("rb") as file:
            for row, line in enumerate(file):
                if row in rows:
                    tokens[row] = json.loads(line)["tokens"]
                if row == last:
                    break
        return np.array([tokens[row] for row in index_B.tolist()])

    return read


def timed(read: Read, index_KB: NDArray[np.int64]) -> tuple[float, list[NDArray[np.int64]]]:
    began = time.perf_counter()
    tokens = [read(index_B) for index_B in index_KB]
    return (time.perf_counter() - began) / len(index_KB), tokens


def compared(ours: Read, theirs: Read, rows: int, batch: int, batches: int) -> dict[str, Any]:
    """Times both readers on the same runs of batches (seconds per batch); they take turns at going first.

    Within a run, a reader reads one batch after the other, as a data loader does.
    """
    random, pairs = np.random.default_rng(1), []
    for number in range(max(2, batches // RUN)):
        index_KB = random.integers(0, rows, (min(RUN, batches), batch))
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        (first_seconds, tokens), (second_seconds, same) = timed(first, index_KB), timed(second, index_KB)
        np.testing.assert_array_equal(tokens, same)
        pairs.append((first_seconds, second_seconds) if number % 2 else (second_seconds, first_seconds))
    return {
        "runs": len(pairs),
        "batches_in_a_run": min(RUN, batches),
        "rarkit_seconds": statistics.median(quick for quick, _ in pairs),
        "lines_seconds": statistics.median(slow for _, slow in pairs),
        "ratio": statistics.median(slow / quick for quick, slow in pairs),
        "ratio_of_totals": sum(slow for _, slow in pairs) / sum(quick for quick, _ in pairs),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--length", type=int, default=256)
    arguments.add_argument("--batch", type=int, default=256)
    arguments.add_argument("--batches", type=int, default=400)
    arguments.add_argument("--folder", type=Path, help="temporary folder with room for 2 GB; the system's by default")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rarkit-benchmark-", dir=options.folder) as scratch:
        store, lines = Path(scratch) / "store", Path(scratch) / "tokens.jsonl"
        output = write_store(store, options.rows, options.length)
        export_tokens(str(store), str(lines))
        assert output.verify() is None
        sizes = {"store_bytes": output.bytes_used(), "lines_bytes": lines.stat().st_size}
        reader = RowReader(output, TOKENS)
        rows = []

        def ours(index_B: NDArray[np.int64]) -> NDArray[np.int64]:
            return reader.rows(index_B).astype(np.int64)

        for name, make, batches in (
            ("indexed lines", indexed, options.batches),
            ("lines in memory", kept, options.batches),
            ("scanned lines", scanned, SCANS),
        ):
            began = time.perf_counter()
            theirs = make(lines)
            opening = time.perf_counter() - began
            # Warm-up: both readers map a page on its first read, and training reads everything many times.
            compared(ours, theirs, options.rows, options.batch, batches)
            row = {"against": name, "opening_seconds": opening}
            rows.append(row | compared(ours, theirs, options.rows, options.batch, batches))
            print(
                "against {against}: {rarkit_seconds:.6f} s per batch and {lines_seconds:.6f} s, ratio {ratio:,.1f} "
                "(of totals {ratio_of_totals:,.1f})".format(**rows[-1]),
                flush=True,
            )
    RESULTS.mkdir(exist_ok=True)
    about = {name: value for name, value in vars(options).items() if name != "folder"} | {"page_cache": "warm"}
    result = {"machine": machine(), "options": about, "sizes": sizes, "rows": rows}
    (RESULTS / "reader.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
