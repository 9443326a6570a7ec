"""A training of the digits under torchrun with three kills on the way: equal, bit for bit, to the undisturbed one.

    python benchmarks/torchrun_kills.py [--steps 10000] [--seed 0] [--way ddp] [--save]

Trains a small model on the digits in two processes, `torchrun --nproc-per-node 2 -m rarkit run`: once undisturbed. Then in a fresh
store, at steps drawn at random, one of the processes is killed with SIGKILL, one of them alone gets SIGTERM, and torchrun itself is
killed with SIGKILL; each time the same command is run again. Measures how long it takes until all processes have ended, and
compares weights and log. Exits with 1 where they differ, where a run did not go on from a checkpoint, or where a process was still
there after 30 s. `--save` writes benchmarks/results/torchrun_kills.json. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bits import trained
from kills import children, is_there

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
WITHIN = 30.0
RECIPE = """extends = "{root}/recipes/digits.toml"
[model]
hidden_size = 32
depth = 1
num_heads = 2
dropout = 0.1
[train]
steps = {steps}
batch_size = 16
checkpoint_every = {every}
data_parallel = "{way}"
"""
KILLS = ("SIGKILL to a rank", "SIGTERM to a rank", "SIGKILL to torchrun")


class Run:
    """A run under torchrun."""

    def __init__(self, folder: Path, until: str = "train", processes: int = 2) -> None:
        self.folder, self.output = folder, folder / "output.txt"
        self.log = folder / "runs/killed/log.jsonl"
        self.log.unlink(missing_ok=True)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = ["-m", "rarkit", "run", str(folder / "killed.toml"), "--until", until, "--device", "cpu"]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, *command, "--store", str(folder / "store"), "--runs", str(folder / "runs")],
                stdout=output,
                stderr=output,
                env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": paths},
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def step(self) -> int:
        """How many steps the log has."""
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def ranks(self) -> list[int]:
        """The processes that torchrun started, by rank."""
        found = {}
        for process in children(self.process.pid):
            with contextlib.suppress(OSError):
                variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                found.update({int(value[5:]): process for value in variables if value.startswith(b"RANK=")})
        return [found[rank] for rank in sorted(found)]


def kill(run: Run, kind: str, step: int, chance: random.Random) -> dict[str, Any]:
    """Waits for a step, kills, and waits until all processes have ended."""
    while run.step() < step:
        assert run.process.poll() is None, run.said
        time.sleep(0.05)
    ranks = run.ranks()
    assert len(ranks) == 2, run.said
    name, rank = kind.split()[0], None if kind.endswith("torchrun") else chance.randrange(2)
    at, began = run.step(), time.monotonic()
    os.kill(run.process.pid if rank is None else ranks[rank], getattr(signal, name))
    while (run.process.poll() is None or any(map(is_there, ranks))) and time.monotonic() - began < 4 * WITHIN:
        time.sleep(0.02)
    seconds = round(time.monotonic() - began, 2)
    left = [process for process in (run.process.pid, *ranks) if is_there(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    errors = [line for line in run.said.splitlines() if line.startswith("error: ")]
    return {"kind": kind, "rank": rank, "step": at, "seconds": seconds, "left": len(left), "error": errors[0] if errors else ""}


def whole(folder: Path, until: str = "train", processes: int = 2) -> str:
    """Lets a run complete; what it said."""
    run = Run(folder, until, processes)
    assert run.process.wait() == 0, run.said
    return run.said


def killed(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Trains with kills on the way: what they did, and what is wrong."""
    chance, told, wrong = random.Random(options.seed), [], []
    for index, kind in enumerate(chance.sample(KILLS, len(KILLS))):
        first = options.steps * (2 * index + 1) // (2 * len(KILLS) + 1)
        step = first + chance.randrange(max(1, options.steps // (2 * len(KILLS) + 1)))
        run = Run(folder)
        event = kill(run, kind, step, chance)
        told.append(event)
        print(event, flush=True)
        if index and "resuming from the checkpoint" not in run.said:
            wrong.append(f"before {kind}, the run began again: {run.said}")
        if event["seconds"] > WITHIN:
            wrong.append(f"{kind}: {event['left']} processes were there after {event['seconds']} s: {run.said}")
    said = whole(folder)
    if "resuming from the checkpoint" not in said:
        wrong.append(f"the last run began again: {said}")
    return told, wrong


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--way", choices=("ddp", "fsdp"), default="ddp", help="how the processes share the training")
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/torchrun_kills.json")
    options = arguments.parse_args()
    text = RECIPE.format(root=ROOT, steps=options.steps, every=max(1, options.steps // 25), way=options.way)
    with tempfile.TemporaryDirectory(prefix="rarkit-torchrun-") as place:
        base = Path(place) / "base"
        base.mkdir()
        (base / "killed.toml").write_text(text)
        whole(base, "tokenize", 1)
        undisturbed = shutil.copytree(base, Path(place) / "undisturbed")
        began = time.monotonic()
        whole(undisturbed)
        seconds = round(time.monotonic() - began, 1)
        print(f"undisturbed: {options.steps:,} steps in {seconds} s", flush=True)
        began, expected = time.monotonic(), trained(undisturbed)
        folder = shutil.copytree(base, Path(place) / "killed")
        told, wrong = killed(folder, options)
        if not expected or trained(folder) != expected:
            wrong.append("other bits")
        with_kills = round(time.monotonic() - began, 1)
    print(f"with {len(told)} kills: {with_kills} s, {'wrong' if wrong else 'the same bits'}", *wrong, sep="\n")
    if options.save:
        from machine import machine

        result = {"machine": machine(), "options": vars(options), "undisturbed_seconds": seconds, "seconds": with_kills}
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(result | {"kills": told, "digests": expected, "wrong": wrong}, indent=2)
        (RESULTS / "torchrun_kills.json").write_text(text + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
