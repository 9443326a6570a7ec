"""SIGKILL at random moments of a run, by one process and by two ranks: run again, it must end with the same bits.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--save]

Runs tests/data/small.toml with a longer training once undisturbed. Then, in a fresh store, runs it again and again: each time it
waits until a stage drawn at random has begun, then for a random part of the time that this stage took undisturbed, and kills the
process; of two ranks (gloo, by torchrun's own agent) one, or both with the agent. At last it lets the run complete and compares all
arrays, files, records and results. Exits with 1 where they differ, or where a kill left what cannot go on. `--save` writes
benchmarks/results/kills.json. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bits import bits

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.processes import end, launched, rarkit, start  # noqa: E402  (found by the line above)

RESULTS = Path(__file__).parent / "results"
RECIPE = f"""extends = "{ROOT}/tests/data/small.toml"
[train]
steps = 60
checkpoint_every = 7
"""
STAGES = ("fit", "tokenize", "train", "sample", "reference", "evaluate")


def begin(folder: Path, ranks: int) -> BaseProcess:
    """Starts `rarkit run` on the folder's store."""
    command = ("run", folder / "killed.toml", "--store", folder / "store", "--runs", folder / "runs", "--device", "cpu", "--quiet")
    for name in ("stdout", "stderr"):
        (folder / name).unlink(missing_ok=True)
    return start(folder, rarkit, *command) if ranks == 1 else start(folder, launched, ranks, folder, rarkit, command)


def whole(folder: Path, ranks: int) -> str | None:
    """Lets the run complete; what went wrong, if anything did."""
    ended = end(folder, begin(folder, ranks))
    return None if ended.returncode == 0 else f"exit code {ended.returncode}: {ended.stdout}{ended.stderr}"


def children(process: int) -> list[int]:
    """The processes that a process started."""
    started = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == process:
                started.append(int(stat.parent.name))
    return sorted(started)


def is_there(process: int) -> bool:
    """Whether a process has not ended; one that only waits to be asked how it ended has."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def kill(folder: Path, ranks: int, stage: str, wait: float, chance: random.Random) -> str:
    """Starts the run, and kills it at a moment of a stage. Returns the stage that it was in, or "" if the run had ended."""
    process = begin(folder, ranks)
    while process.is_alive() and not _begun(folder, stage):
        time.sleep(0.002)
    time.sleep(wait)
    where = _in_stage(folder)
    victims = children(process.pid or 0)
    if ranks == 1 or not victims:
        victims = [process.pid or 0]
    elif chance.random() < 0.5:
        victims = [chance.choice(victims)]
    else:
        victims = [process.pid or 0, *victims]
    alive = process.is_alive()
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    process.join()
    for victim in victims:
        while is_there(victim):
            time.sleep(0.002)
    return where if alive and process.exitcode != 0 else ""


def _begun(folder: Path, stage: str) -> bool:
    return any((folder / "store" / stage).glob("*/lock.json"))


def _in_stage(folder: Path) -> str:
    """The stage that a run is in."""
    for stage in reversed(STAGES):
        for output in (folder / "store" / stage).glob("*"):
            return stage if (output / "lock.json").exists() else f"after {stage}"
    return "before fit"


def fresh(folder: Path) -> Path:
    folder.mkdir()
    (folder / "killed.toml").write_text(RECIPE)
    return folder


def durations(folder: Path) -> dict[str, float]:
    """How long each stage of a finished run took, in seconds."""
    times = {}
    for record in (folder / "store").glob("*/*/zarr.json"):
        about = json.loads(record.read_text())["attributes"]["rarkit"]
        times[record.parent.parent.name] = max(0.05, about["finished"] - about["started"])
    return times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/kills.json")
    options = arguments.parse_args()
    chance = random.Random(options.seed)
    counts: dict[int, Counter[str]] = {1: Counter(), 2: Counter()}
    runs, wrong = Counter[int](), []
    with tempfile.TemporaryDirectory(prefix="rarkit-kills-") as scratch:
        undisturbed = fresh(Path(scratch) / "undisturbed")
        assert (failure := whole(undisturbed, 1)) is None, failure
        expected, seconds = bits(undisturbed), durations(undisturbed)
        print({stage: round(seconds[stage], 2) for stage in STAGES}, flush=True)
        while sum(counts[1].values()) + sum(counts[2].values()) < options.kills:
            ranks = 1 + sum(runs.values()) % 2
            folder = fresh(Path(scratch) / f"{sum(runs.values())}")
            runs[ranks] += 1
            for stage in sorted(chance.choices(STAGES, k=8), key=STAGES.index):
                wait = chance.uniform(0, seconds[stage])
                if where := kill(folder, ranks, stage, wait, chance):
                    counts[ranks][where] += 1
            problem = whole(folder, ranks)
            if problem is None and bits(folder) != expected:
                problem = "other bits"
            if problem:
                wrong.append(problem)
            print(f"{ranks} rank(s): {dict(counts[ranks])} {problem or 'the same bits'}", flush=True)
    total = sum(sum(count.values()) for count in counts.values())
    print(f"{total} kills in {sum(runs.values())} runs, {len(wrong)} of them wrong")
    if options.save:
        from machine import machine

        result: dict[str, Any] = {"machine": machine(), "options": vars(options), "runs": dict(runs), "wrong": wrong}
        result["kills"] = {f"{ranks} rank(s)": dict(count) for ranks, count in counts.items()}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "kills.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
