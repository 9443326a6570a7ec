"""Startup time of commands that compute little, against Python importing the libraries that print help.

    python benchmarks/startup.py [--pairs 20]

Each command runs in turn with `python -c "import typer, rich.panel, rich.table"`, each in its own process; times are medians of
wall-clock seconds. `rarkit plan` gets a recipe whose data is present and whose store is empty. Writes
benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parents[1] / "recipes"
PLAIN = [sys.executable, "-c", "import typer, rich.panel, rich.table"]


def seconds(command: list[str], folder: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=20)
    options = arguments.parse_args()
    rarkit = str(Path(sys.executable).with_name("rarkit"))
    commands = {
        "rarkit --help": [rarkit, "--help"],
        "rarkit orders show spiral": [rarkit, "orders", "show", "spiral", "--grid", "8x8"],
        "rarkit plan recipes/digits.toml": [rarkit, "plan", str(RECIPES / "digits.toml")],
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands.items():
            _warm_up, *pairs = [(seconds(PLAIN, folder), seconds(command, folder)) for _ in range(options.pairs + 1)]
            plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append({"command": name, "plain_seconds": plain, "seconds": ours, "ratio": ours / plain, "pairs": pairs})
            print(f"{name:34} {ours:5.2f} s, Python with typer and rich {plain:5.2f} s: {ours / plain:.1f} ×", flush=True)
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": vars(options), "rows": rows}
    (RESULTS / "startup.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
