"""A whole recipe here and in another checkout: how long it takes, and whether its numbers are those of before.

    python benchmarks/before_after.py OTHER_CHECKOUT [--recipe recipes/digits.toml] [--seeds 5] [--save]

Runs `rarkit run` in both checkouts in turn, once for each seed, each in a process and a store of its own. Times are of the whole
command, start and report included; the ratio is the median over the pairs. A metric is "within" if the mean over the seeds here
lies in the range of the seeds there; metrics that only one checkout has are left out. `--save` writes
benchmarks/results/before_after.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine

HERE = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def ran(checkout: Path, recipe: str, seed: int) -> tuple[float, dict[str, float]]:
    """Seconds of a run, and its metrics by name."""
    with tempfile.TemporaryDirectory(prefix="rarkit-before-after-") as folder:
        command = [sys.executable, "-m", "rarkit", "run", str(checkout / recipe), "--set", f"seed={seed}", "--device", "cpu"]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        [metrics] = Path(folder, "runs").glob("*/metrics.json")
        return seconds, {metric["name"]: metric["value"] for metric in json.loads(metrics.read_text())["metrics"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT")
    parser.add_argument("--recipe", default="recipes/digits.toml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    pairs: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        before, numbers_before = ran(options.other.resolve(), options.recipe, seed)
        after, numbers = ran(HERE, options.recipe, seed)
        pairs.append({"seed": seed, "before": before, "after": after, "numbers_before": numbers_before, "numbers": numbers})
        print(f"seed {seed}: {before:.1f} s there, {after:.1f} s here, {after / before:.2f}", flush=True)
    ratio = statistics.median(pair["after"] / pair["before"] for pair in pairs)
    print(f"{options.recipe}: {ratio:.2f} of the time there (median over {len(pairs)} pairs)")
    rows = {}
    for name in [name for name in pairs[0]["numbers"] if name in pairs[0]["numbers_before"]]:
        there, here = ([pair[key][name] for pair in pairs] for key in ("numbers_before", "numbers"))
        mean = statistics.mean(here)
        rows[name] = {"there": [min(there), max(there)], "here": mean, "within": min(there) <= mean <= max(there)}
        outside = "" if rows[name]["within"] else "  outside"
        print(f"{name:24}{min(there):10.4f} … {max(there):.4f} there, mean {mean:.4f} here{outside}")
    if options.save:
        told = {"machine": machine(), "recipe": options.recipe, "ratio": ratio, "metrics": rows, "pairs": pairs}
        (RESULTS / "before_after.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
