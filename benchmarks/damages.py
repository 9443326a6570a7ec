"""Damages to finished stores: bytes flipped, files cut, deleted, zeroed, edited and swapped, metadata included.

    python benchmarks/damages.py [--cases 300] [--seed 0] [--jobs 2] [--save]

Runs tests/data/small.toml (all six stages) twice, with two seeds. Then, on a fresh copy of the first store, does one damage (drawn
at random; the kinds of `tests/damages.py` in turn) and looks at what the commands make of it:

- `rarkit cache verify` must call every damaged output damaged, and exit with 1;
- `rarkit plan` must plan;
- `rarkit sample` must give the images of the undamaged run, or one message;
- `rarkit run`, once the outputs that build on the damaged one have been removed, so that it is read, must end with the bits of the
  undamaged run, or with one message; and in the latter case with these bits with `--force`.

Nothing may end in a traceback. Exits with 1 where something does not hold. `--save` writes benchmarks/results/damages.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from bits import bits

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.damages import CASES, METADATA, RECORD, SWAPS, Damage, damaged  # noqa: E402  (found by the line above)
from tests.processes import Ended, call, rarkit  # noqa: E402

RESULTS = Path(__file__).parent / "results"
RECIPE = ROOT / "tests/data/small.toml"
READERS = {
    "fit": ("tokenize", "train", "sample", "reference", "evaluate"),
    "tokenize": ("train", "sample", "reference", "evaluate"),
    "train": ("sample", "evaluate"),
    "sample": ("evaluate",),
    "reference": ("evaluate",),
    "evaluate": (),
}
"""The stages that build on the output of a stage."""


class Case:
    """A folder with a store, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self.runs = [folder / "small.toml", "--store", self.store]

    def command(self, *arguments: object) -> Ended:
        for name in ("stdout", "stderr"):
            (self.folder / name).unlink(missing_ok=True)
        return call(self.folder, rarkit, *arguments)

    def run(self, *arguments: object) -> Ended:
        return self.command("run", *self.runs, "--runs", self.folder / "runs", "--device", "cpu", "--quiet", *arguments)

    def sample(self) -> tuple[Ended, str | None]:
        """And a digest of the samples."""
        drawn = self.folder / "drawn.npz"
        drawn.unlink(missing_ok=True)
        wanted = ("--class", 0, "-n", 3, "-o", drawn, "--device", "cpu", "--quiet")
        ended = self.command("sample", self.folder / "runs/small", "--store", self.store, *wanted)
        if ended.returncode:
            return ended, None
        with np.load(drawn) as arrays:
            return ended, hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def complaint(what: str, ended: Ended, codes: tuple[int, ...]) -> str | None:
    """What is wrong with how a command ended."""
    printed = ended.stdout + ended.stderr
    if "Traceback" in printed:
        return f"{what}: a traceback\n{printed}"
    if ended.returncode not in codes:
        return f"{what} ended with {ended.returncode}: {printed}"
    messages = sum(line.startswith("error: ") for line in ended.stderr.splitlines())
    return None if messages == (ended.returncode == 2) else f"{what}: {messages} messages\n{printed}"


def verified(case: Case, damage: Damage) -> str | None:
    ended = case.command("cache", "verify", "--store", case.store, "--json")
    if "Traceback" in ended.stderr or ended.returncode != 1:
        return f"verify ended with {ended.returncode}: {ended.stderr}"
    states = {f"{row['stage']}/{row['fingerprint']}": row["state"] for row in json.loads(ended.stdout)}
    whole = [output for output in damage.outputs if states.get(output) != "damaged"]
    return f"verify takes {whole} for whole: {states}" if whole else None


def ran(case: Case, damage: Damage, expected: dict[str, str]) -> tuple[str, str | None]:
    """What `rarkit run` did, and what is wrong with it."""
    for stage in damage.stages:
        for reader in READERS[stage]:
            shutil.rmtree(case.store / reader, ignore_errors=True)
    shutil.rmtree(case.folder / "runs")
    ended = case.run()
    if wrong := complaint("run", ended, (0, 2)):
        return "", wrong
    if ended.returncode == 0:
        left = bits(case.folder, skip=lambda output: output.verify() is not None)
        unlike = [name for name, digest in left.items() if expected.get(name) != digest]
        lacking = [name for name in expected if name not in left and not any(name.startswith(output) for output in damage.outputs)]
        return "not read, or made anew", f"run used it: {unlike} {lacking}" if unlike or lacking else None
    forced = [word for stage in sorted(damage.stages) for word in ("--force", stage)]
    again = case.run(*forced)
    wrong = complaint("run --force", again, (0,))
    if wrong is None and bits(case.folder) != expected:
        wrong = "run --force gives other bits"
    return "refused", wrong


def judged(case: Case, damage: Damage, expected: dict[str, str], drawn: str) -> dict[str, Any]:
    planned = case.command("plan", *case.runs)
    sampled, digest = case.sample()
    wrongs = [verified(case, damage), complaint("plan", planned, (0,)), complaint("sample", sampled, (0, 2))]
    if digest not in (None, drawn):
        wrongs.append("sample used it")
    outcome, wrong = ran(case, damage, expected)
    wrongs.append(wrong)
    row = {"damage": str(damage), "kind": damage.kind, "act": damage.act, "run": outcome}
    return row | {"sample": "refused" if digest is None else "drawn", "wrong": [wrong for wrong in wrongs if wrong]}


def finished(folder: Path, *arguments: object) -> Case:
    folder.mkdir()
    shutil.copy(RECIPE, folder)
    case = Case(folder)
    assert (ended := case.run(*arguments)).returncode == 0, ended.stderr
    return case


def one(scratch: Path, seed: int, expected: dict[str, str], drawn: str, number: int) -> dict[str, Any]:
    """Does a damage to a copy of the whole store, and judges what becomes of it."""
    case = Case(scratch / f"case-{number}")
    shutil.copytree(scratch / "whole", case.folder)
    damage = damaged(case.store, scratch / "other/store", *CASES[number % len(CASES)], random.Random(f"{seed} {number}"))
    row = judged(case, damage, expected, drawn)
    shutil.rmtree(case.folder)
    if row["wrong"]:
        print(f"{number}. {damage}", *row["wrong"], sep="\n", flush=True)
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--jobs", type=int, default=1, help="so many damaged stores at once")
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/damages.json")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rarkit-damages-") as scratch:
        whole = finished(Path(scratch, "whole"))
        finished(Path(scratch, "other"), "--set", "seed=7")
        expected, drawn = bits(whole.folder), whole.sample()[1]
        assert drawn is not None
        # Each job has processes of its own to fork from.
        with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
            rows = list(pool.map(partial(one, Path(scratch), options.seed, expected, drawn), range(options.cases)))
    wrong = [row for row in rows if row["wrong"]]
    metadata = sum(row["kind"] in (RECORD, METADATA) for row in rows)
    swaps = sum(row["act"] in SWAPS for row in rows)
    ended = Counter(row["run"] for row in rows if not row["wrong"])
    print(f"{len(rows)} damages, {metadata} to metadata, {swaps} swaps: {dict(ended)}, {len(wrong)} wrong")
    if options.save:
        from machine import machine

        table = {kind: Counter(f"{row['act']}: {row['run']}" for row in rows if row["kind"] == kind) for kind, _ in CASES}
        result: dict[str, Any] = {"machine": machine(), "options": vars(options), "damages": len(rows), "to metadata": metadata}
        result |= {"swaps": swaps, "by kind": table, "sample": Counter(row["sample"] for row in rows), "wrong": wrong}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "damages.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
