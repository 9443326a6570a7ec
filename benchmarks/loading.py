"""Memory needed to load a checkpoint, for models of the released sizes with random weights.

    python benchmarks/loading.py [--preset rar_xxl] [--round-trip rar_b] [--folder DIR]

Writes a random `.bin` (float32, as released) and loads it with `load_rar` in fresh processes: as stored, as stored with all weights
read, and converted to bfloat16. For each process it reports peak resident memory (`VmHWM`: anonymous pages and pages of the mapped
file), minus that of a process that loads a tiny file, relative to the file size; and how much of the memory resident at the end is
anonymous (`RssAnon`) and how much is pages of the mapped file (`RssFile`), which the system reclaims when memory is short. It then
checks a round trip at the other size: load a `.bin`, save it in both formats, compare every tensor bit by bit. Writes
benchmarks/results/loading.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine

from rarkit.models import PRESETS, RAR, RARConfig, load_rar, save_rar

RESULTS = Path(__file__).parent / "results"
BOUND = 1.3
TINY = RARConfig(hidden_size=16, depth=1, num_heads=2, mlp_hidden_size=16, seq_len=4, codebook_size=8, num_classes=2)
CASES = {"as stored": (None, False), "as stored, all weights read": (None, True), "to bfloat16": (torch.bfloat16, True)}


def write_random(config: RARConfig, path: Path) -> None:
    """Writes random weights with `torch.save`, in the format of the released files."""
    with torch.device("meta"):
        model = RAR(config)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.empty(weight.shape).uniform_(-0.04, 0.04, generator=generator) for name, weight in model.state_dict().items()
    }
    torch.save(weights, path)


def child(path: Path, preset: str, case: str) -> None:
    """Loads the file, and prints time and memory as JSON."""
    dtype, touched = CASES[case]
    began = time.perf_counter()
    model = load_rar(path, TINY if preset == "tiny" else preset, dtype=dtype)
    seconds = time.perf_counter() - began
    if touched:
        for weight in model.parameters():
            # Reads one number of each memory page.
            weight.detach().view(-1)[::1024].sum()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # Not ru_maxrss, because a child process inherits the peak of its parent.
    names = {"peak": "VmHWM", "own_at_end": "RssAnon", "mapped_at_end": "RssFile"}
    memory = {name: int(status[line].split()[0]) * 1024 for name, line in names.items()}
    print(json.dumps({"seconds": seconds, **memory}))


def in_fresh_process(path: Path, preset: str, case: str) -> dict[str, Any]:
    """Runs `child` in a new process and returns what it printed."""
    command = [sys.executable, __file__, "--child", str(path), preset, case]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measured(path: Path, preset: str, tiny: Path) -> list[dict[str, Any]]:
    """A row per way of loading, in bytes beyond those of a process that loads a tiny file in the same way."""
    size, rows = path.stat().st_size, []
    for case in CASES:
        base, loaded = in_fresh_process(tiny, "tiny", case), in_fresh_process(path, preset, case)
        row = {"case": case, "file": size, "seconds": loaded["seconds"], "peak_with_libraries": loaded["peak"]}
        row |= {name: loaded[name] - base[name] for name in ("peak", "own_at_end", "mapped_at_end")}
        row |= {"ratio": row["peak"] / size, "ratio_with_libraries": loaded["peak"] / size}
        rows.append(row)
        own, mapped = row["own_at_end"] / 1e9, row["mapped_at_end"] / 1e9
        print(
            f"{preset} {case:28} {row['seconds']:5.1f} s, peak {row['peak'] / 1e9:.2f} GB for a file of {size / 1e9:.2f} GB: "
            f"{row['ratio']:.3f} × (at the end {own:.2f} GB anonymous, {mapped:.2f} GB mapped)",
            flush=True,
        )
    return rows


def round_trip(preset: str, folder: Path) -> dict[str, Any]:
    """Loads a `.bin`, saves it in both formats, loads these, and compares all tensors bit by bit."""
    source, began = folder / f"{preset}.bin", time.perf_counter()
    write_random(PRESETS[preset], source)
    expected = torch.load(source, weights_only=True, mmap=True)
    same = {}
    for suffix in (".bin", ".safetensors"):
        place = folder / f"again{suffix}"
        save_rar(load_rar(source, preset), place)
        state = load_rar(place, preset).state_dict()
        same[suffix] = list(state) == list(expected) and all(
            torch.equal(state[name].view(torch.uint8), tensor.view(torch.uint8)) for name, tensor in expected.items()
        )
        place.unlink()
    row = {"preset": preset, "tensors": len(expected), "bytes": source.stat().st_size, "same": same}
    print(f"{preset}: {len(expected)} tensors identical after a round trip: {same}")
    return row | {"seconds": time.perf_counter() - began}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--preset", choices=PRESETS, default="rar_xxl")
    arguments.add_argument("--round-trip", choices=PRESETS, default="rar_b")
    arguments.add_argument("--folder", type=Path, help="temporary folder with room for the file; the system's by default")
    arguments.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        child(Path(options.child[0]), *options.child[1:])
        return
    with tempfile.TemporaryDirectory(prefix="rarkit-benchmark-", dir=options.folder) as scratch:
        folder = Path(scratch)
        write_random(TINY, folder / "tiny.bin")
        trip = round_trip(options.round_trip, folder)
        write_random(PRESETS[options.preset], folder / f"{options.preset}.bin")
        rows = measured(folder / f"{options.preset}.bin", options.preset, folder / "tiny.bin")
    RESULTS.mkdir(exist_ok=True)
    about = {"preset": options.preset, "round_trip": options.round_trip, "bound": BOUND}
    result = {"machine": machine(), "options": about, "rows": rows, "round_trip": trip}
    (RESULTS / "loading.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if all(row["ratio"] <= BOUND for row in rows) and all(trip["same"].values()) else 1)


if __name__ == "__main__":
    main()
