"""Startup time of commands that compute little, against Python importing the libraries that print help.

    python benchmarks/startup.py [--pairs 20]

Each command runs in turn with `python -c "import typer, rich.panel, rich.table"`, each in its own process; times are medians of
wall-clock seconds. `rarkit plan` gets a recipe whose data is present and whose store is empty. Some run where 20 plugins are
installed too, of which five are broken: what loads parts imports them all. Writes benchmarks/results/startup.json.
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

from machine import machine

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.new_plugins import many

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parents[1] / "recipes"
PLAIN = [sys.executable, "-c", "import typer, rich.panel, rich.table"]


def seconds(command: list[str], folder: str, site: Path | None = None) -> float:
    environment = {**os.environ, **({} if site is None else {"PYTHONPATH": str(site)})}
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment)
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
        site = Path(folder, "site")
        site.mkdir()
        many(Path(folder, "written"), site)
        listed = [rarkit, "plugins", "list"]
        tries = [(name, command, None) for name, command in commands.items()] + [
            ('python -c "import rarkit"', [sys.executable, "-c", "import rarkit"], None),
            ("rarkit plugins list", listed, None),
            ("rarkit --help, 20 plugins", commands["rarkit --help"], site),
            ("rarkit plugins list, 20 plugins", listed, site),
        ]
        for name, command, place in tries:
            _warm_up, *pairs = [(seconds(PLAIN, folder), seconds(command, folder, place)) for _ in range(options.pairs + 1)]
            plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append({"command": name, "plain_seconds": plain, "seconds": ours, "ratio": ours / plain, "pairs": pairs})
            print(f"{name:34} {ours:5.2f} s, Python with typer and rich {plain:5.2f} s: {ours / plain:.1f} ×", flush=True)
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": vars(options), "rows": rows}
    (RESULTS / "startup.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
