"""How much memory does loading a checkpoint take? Released sizes, random weights.

    python benchmarks/loading.py [--preset rar_xxl] [--round-trip rar_b] [--folder DIR]

Writes a random `.bin` (float32, as released) and loads it with `load_rar` in fresh processes: as it is, with every weight read, and
converted to bfloat16. Of each process it reports the peak of resident memory (`VmHWM`: its own pages and those of the mapped
file), less that of a process that loaded a tiny file, as a share of the file; and how much of what is resident at the end is its
own (`RssAnon`) and how much is pages of the mapped file (`RssFile`), which the system takes back when memory is short. Then the
round trip of the other size: `.bin`, load, save, bytes of every tensor. Writes benchmarks/results/loading.json.
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
    """A file as `torch.save` of a state dict makes it."""
    with torch.device("meta"):
        model = RAR(config)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.empty(weight.shape).uniform_(-0.04, 0.04, generator=generator) for name, weight in model.state_dict().items()
    }
    torch.save(weights, path)


def child(path: Path, preset: str, case: str) -> None:
    """Loads the file and prints what it took, as JSON."""
    dtype, touched = CASES[case]
    began = time.perf_counter()
    model = load_rar(path, TINY if preset == "tiny" else preset, dtype=dtype)
    seconds = time.perf_counter() - began
    if touched:
        for weight in model.parameters():
            # One number of each memory page.
            weight.detach().view(-1)[::1024].sum()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # Not ru_maxrss: a process that is started inherits the peak of the one that started it.
    names = {"peak": "VmHWM", "own_at_end": "RssAnon", "mapped_at_end": "RssFile"}
    found = {name: int(status[line].split()[0]) * 1024 for name, line in names.items()}
    print(json.dumps({"seconds": seconds, **found}))


def in_fresh_process(path: Path, preset: str, case: str) -> dict[str, Any]:
    """What `child` printed."""
    command = [sys.executable, __file__, "--child", str(path), preset, case]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measured(path: Path, preset: str, tiny: Path) -> list[dict[str, Any]]:
    """A row for each way of loading, all figures in bytes beyond those of a process that loaded a tiny file the same way."""
    size, rows = path.stat().st_size, []
    for case in CASES:
        base, found = in_fresh_process(tiny, "tiny", case), in_fresh_process(path, preset, case)
        row = {"case": case, "file": size, "seconds": found["seconds"], "peak_with_libraries": found["peak"]}
        row |= {name: found[name] - base[name] for name in ("peak", "own_at_end", "mapped_at_end")}
        row |= {"ratio": row["peak"] / size, "ratio_with_libraries": found["peak"] / size}
        rows.append(row)
        own, mapped = row["own_at_end"] / 1e9, row["mapped_at_end"] / 1e9
        print(
            f"{preset} {case:28} {row['seconds']:5.1f} s, peak {row['peak'] / 1e9:.2f} GB of a file of {size / 1e9:.2f} GB: "
            f"{row['ratio']:.3f} × (at the end {own:.2f} GB its own, {mapped:.2f} GB mapped)",
            flush=True,
        )
    return rows


def round_trip(preset: str, folder: Path) -> dict[str, Any]:
    """`.bin` → `load_rar` → both formats → bytes of every tensor."""
    source, began = folder / f"{preset}.bin", time.perf_counter()
    write_random(PRESETS[preset], source)
    expected = torch.load(source, weights_only=True, mmap=True)
    same = {}
    for suffix in (".bin", ".safetensors"):
        place = folder / f"again{suffix}"
        save_rar(load_rar(source, preset), place)
        found = load_rar(place, preset).state_dict()
        same[suffix] = list(found) == list(expected) and all(
            torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)) for name, tensor in expected.items()
        )
        place.unlink()
    row = {"preset": preset, "tensors": len(expected), "bytes": source.stat().st_size, "same": same}
    print(f"{preset}: {len(expected)} tensors the same after a round trip: {same}")
    return row | {"seconds": time.perf_counter() - began}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--preset", choices=PRESETS, default="rar_xxl")
    arguments.add_argument("--round-trip", choices=PRESETS, default="rar_b")
    arguments.add_argument("--folder", type=Path, help="where there is room for the file; the system's own if not given")
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
