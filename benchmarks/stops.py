"""Trainings that are stopped at random points, by one process and by several: run again, they must end with the same bits.

    python benchmarks/stops.py [--stops 20] [--ranks 1 2 4] [--seed 0] [--save]

Trains tests/data/small.toml for longer, with dropout, a moving average and Muon, once undisturbed by each number of processes
(gloo, by torchrun's own agent) and in each way in which they share the training: DDP, FSDP2, and HSDP if there are four. Then, in
fresh stores, again and again, stopped at points drawn at random: by SIGKILL, SIGTERM or SIGUSR1 to one of the processes, at any
moment or with a checkpoint half-written, or by a disk that is full (ENOSPC) in the middle of one. All processes must end within
30 s of it, with at most one message, and leave no lock unless the first was killed. At last the run completes, and weights and
log are compared. Exits with 1 where anything is wrong. `--save` writes benchmarks/results/stops.json. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bits import trained

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from rarkit.runtime.signals import STOPPING  # noqa: E402  (found by the line above)
from tests.engine.stops import WHOLE, Point, Stop, stopped_at  # noqa: E402
from tests.processes import Ended, end, launched, rarkit, start  # noqa: E402

RESULTS = Path(__file__).parent / "results"
STEPS, EVERY, WITHIN = 40, 7, 30.0
RECIPE = f"""extends = "{ROOT}/tests/data/small.toml"
[model]
dropout = 0.1
attention_dropout = 0.1
[train]
steps = {STEPS}
batch_size = 8
micro_batch_size = 2
checkpoint_every = {EVERY}
ema_decay = 0.9
optimizer = "muon"
"""
FSDP = ["train.data_parallel=fsdp"]
WAYS: dict[int, dict[str, list[str]]] = {
    1: {"alone": []},
    2: {"ddp": [], "fsdp": FSDP},
    4: {"ddp": [], "fsdp": FSDP, "hsdp": [*FSDP, "train.shard=2", "train.replicate=2"]},
}
"""How so many processes share a training, with the settings."""
SIGNALS = ("SIGKILL", "SIGTERM", *(["SIGUSR1"] if getattr(signal, "SIGUSR1", None) in STOPPING else []))


def run(folder: Path, ranks: int, changes: list[str], stops: list[Stop], until: str = "train") -> tuple[Ended, float]:
    """Runs the folder's recipe; how it ended, and when."""
    for name in ("stdout", "stderr"):
        (folder / name).unlink(missing_ok=True)
    sets = [word for change in changes for word in ("--set", change)]
    command = ("run", folder / "stopped.toml", *sets, "--until", until, "--store", folder / "store", "--runs", folder / "runs")
    work, arguments = (stopped_at, (stops, *command, "--device", "cpu")) if stops else (rarkit, (*command, "--device", "cpu"))
    process = start(folder, work, *arguments) if ranks == 1 else start(folder, launched, ranks, folder, work, arguments)
    ended = end(folder, process)
    return ended, time.time()


def drawn(ranks: int, chance: random.Random) -> Stop:
    """A way to stop, and a point for it."""
    how, step, rank = chance.choice([*SIGNALS, "full"]), chance.randrange(STEPS - EVERY), chance.randrange(ranks)
    if how == "full" or chance.random() < 0.4:
        return Stop(how, rank, Point(step, chance.choice([chance.randrange(60), WHOLE])))
    return Stop(how, rank, Point(step), chance.uniform(0.001, 0.1))


def complaint(ended: Ended, stop: Stop, locks: int) -> str | None:
    """What is wrong with how a run was stopped, if anything is."""
    if ended.returncode == 0:
        return "it ended well"
    if "rarkit/" in ended.stderr:
        return f"a traceback: {ended.stderr}"
    messages = len(re.findall(r"^(error: |stopped by )", ended.stderr, re.M))
    silent = stop.how == "SIGKILL" and stop.rank == 0
    if messages != (not silent):
        return f"{messages} messages: {ended.stderr}"
    if locks and not silent:
        return "a lock is left"
    return None


def series(folder: Path, ranks: int, changes: list[str], count: int, chance: random.Random, told: dict[str, Any]) -> str | None:
    """Stops a training up to ``count`` times, and lets it complete; what went wrong, if anything did."""
    for _ in range(count):
        stop = drawn(ranks, chance)
        ended, now = run(folder, ranks, changes, [stop])
        moment = re.search(r"^stopping at ([\d.]+)$", ended.stderr, re.M)
        if ended.returncode == 0 and (moment is None or stop.how != "full"):
            # The training was behind the point already, or a signal came with its last step.
            break
        if moment is None:
            return f"{stop}: it failed before it was stopped: {ended.stderr}"
        took = now - float(moment[1])
        told["seconds"].append(round(took, 2))
        told["stops"][f"{stop.how}, {'in a step' if stop.point.place is None else 'in a checkpoint'}"] += 1
        problem = complaint(ended, stop, len(list((folder / "store").rglob("lock.json"))))
        if problem or took > WITHIN:
            return f"{stop}: {problem or f'{took:.0f} s until all had ended'}"
    ended, _ = run(folder, ranks, changes, [])
    told["resumed"] += "resuming from the checkpoint" in ended.stderr
    return None if ended.returncode == 0 else f"{stop}, then exit code {ended.returncode}: {ended.stderr}"


def tried(scratch: Path, ranks: int, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """What was done with so many processes, and what is wrong."""
    chance, wrong, expected = random.Random(options.seed), [], {}
    told: dict[str, Any] = {"stops": Counter(), "resumed": 0, "runs": 0, "seconds": []}
    for name, changes in WAYS[ranks].items():
        folder = shutil.copytree(scratch / "base", scratch / f"{ranks}-{name}")
        ended, _ = run(folder, ranks, changes, [])
        assert ended.returncode == 0, ended.stderr
        expected[name] = trained(folder)
        assert expected[name]
    while told["stops"].total() < options.stops and len(wrong) < 3:
        name = list(WAYS[ranks])[told["runs"] % len(WAYS[ranks])]
        folder = shutil.copytree(scratch / "base", scratch / f"{ranks}-{told['runs']}")
        told["runs"] += 1
        problem = series(folder, ranks, WAYS[ranks][name], min(4, options.stops - told["stops"].total()), chance, told)
        if problem is None and trained(folder) != expected[name]:
            problem = "other bits"
        if problem:
            wrong.append(f"{ranks} processes, {name}: {problem}")
        print(f"{ranks} process(es), {name}: {dict(told['stops'])} {problem or 'the same bits'}", flush=True)
        shutil.rmtree(folder)
    return told | {"stops": dict(told["stops"]), "seconds": max(told["seconds"], default=0.0)}, wrong


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--stops", type=int, default=20, help="for each number of processes")
    arguments.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], choices=sorted(WAYS))
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/stops.json")
    options = arguments.parse_args()
    began, found, wrong = time.monotonic(), {}, []
    with tempfile.TemporaryDirectory(prefix="rarkit-stops-") as place:
        scratch = Path(place)
        base = scratch / "base"
        base.mkdir()
        (base / "stopped.toml").write_text(RECIPE)
        ended, _ = run(base, 1, [], [], "tokenize")
        assert ended.returncode == 0, ended.stderr
        for ranks in options.ranks:
            found[f"{ranks} process(es)"], problems = tried(scratch, ranks, options)
            wrong += problems
    for name, told in found.items():
        print(
            f"{name}: {sum(told['stops'].values())} stops in {told['runs']} runs; all had ended after at most {told['seconds']} s"
        )
    print(f"{len(wrong)} wrong; {time.monotonic() - began:.0f} s", *wrong, sep="\n")
    if options.save:
        from machine import machine

        result = {"machine": machine(), "options": vars(options), "found": found, "wrong": wrong}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "stops.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
