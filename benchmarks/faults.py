"""Disks that fail: at every kind of file operation of a run, each error that disks and file servers give.

    python benchmarks/faults.py [--cases 400] [--seed 0] [--save]

Runs tests/data/small.toml (all six stages) once undisturbed and counts its file operations in the store and in `runs/`. Then, for
each kind of operation and each error, lets one of them fail, or one and all after it. Each such run must end with one message and
no traceback, or with the results of the undisturbed run where the operation was not needed; whatever it left must count as whole
only if it is; and the next run must complete with the same bits. Exits with 1 where one does not. `--save` writes
benchmarks/results/faults.json. Needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bits import bits
from failing_calls import ERRORS, Fault, Outcome, forked, preloaded

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
RECIPE = ROOT / "tests/data/small.toml"
IMPORTED_ONCE = (
    *("torch._dynamo", "zarr", "sklearn.cluster", "PIL.Image", "jinja2", "safetensors.torch"),
    *("rarkit.cli.app", "rarkit.builtin", "rarkit.pipeline.run", "rarkit.recipe.load", "rarkit.report.publish"),
    *(
        "rarkit.report.page",
        "rarkit.cache.zarr_groups",
        "rarkit.engine.trainer",
        "rarkit.training.next_token",
        "rarkit.training.likelihood",
    ),
    *("rarkit.models.rar.rar", "rarkit.models.rar.decoding.prepared", "rarkit.models.rar.decoding.native_steps"),
    "rarkit.features._classifier_network",
)
"""What forked processes need not import each for itself."""


def rarkit_run() -> None:
    """`rarkit run` in this process."""
    from rarkit.cli import main

    sys.argv = ["rarkit", "run", "small.toml", "--store", "store", "--device", "cpu"]
    main()


def complaint(outcome: Outcome, left: dict[str, str], expected: dict[str, str]) -> str | None:
    """What is wrong with how a run with a fault ended."""
    if outcome.code not in (0, 1, 2):
        return f"ended with {outcome.code}"
    if "Traceback" in outcome.output:
        return "a traceback"
    messages = sum(line.startswith("error: ") for line in outcome.output.splitlines())
    if messages != (outcome.code != 0):
        return f"{messages} messages"
    wrong = [name for name, digest in left.items() if not name.startswith("runs ") and expected.get(name) != digest]
    if wrong:
        return f"taken for whole, and it is not: {wrong}"
    if outcome.code == 0 and left != expected:
        return f"ended well without {sorted(set(expected) - set(left))}"
    return None


def cases(calls: dict[str, int], count: int, seed: int) -> list[Fault]:
    """Faults spread evenly over kinds and errors, at numbers drawn from all calls of the kind; half of them last."""
    chance = random.Random(seed)
    pairs = [(kind, error) for kind, errors in ERRORS.items() for error in errors if calls[kind]]
    faults = []
    for index in range(count):
        kind, error = pairs[index % len(pairs)]
        faults.append(Fault(kind, chance.randint(1, calls[kind]), error, lasts=index // len(pairs) % 2 == 1))
    return list(dict.fromkeys(faults))


def fresh(scratch: Path, name: str) -> Path:
    folder = scratch / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(RECIPE, folder / "small.toml")
    return folder


def judge(scratch: Path, fault: Fault, expected: dict[str, str]) -> dict[str, Any]:
    folder = fresh(scratch, "case")
    first = forked(folder, rarkit_run, fault)
    try:
        left = bits(folder)
        wrong = complaint(first, left, expected)
    except Exception as error:
        wrong = f"what it left cannot be read: {error}"
    again = forked(folder, rarkit_run)
    if wrong is None and again.code:
        wrong = f"the next run ended with {again.code}: {again.output}"
    elif wrong is None and bits(folder) != expected:
        wrong = "the next run gives other bits"
    message = first.output[first.output.find("error: ") :].strip() if first.code else ""
    return {"fault": str(fault), "kind": fault.kind, "code": first.code, "message": message, "wrong": wrong, "output": first.output}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", type=int, default=400)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/faults.json")
    options = arguments.parse_args()
    preloaded()
    with tempfile.TemporaryDirectory(prefix="rarkit-faults-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).resolve()
        for module in IMPORTED_ONCE:
            importlib.import_module(module)
        undisturbed = fresh(scratch, "undisturbed")
        outcome = forked(undisturbed, rarkit_run)
        assert outcome.code == 0, outcome.output
        expected = bits(undisturbed)
        print(f"undisturbed: {outcome.calls}", flush=True)
        rows = []
        for number, fault in enumerate(cases(outcome.calls, options.cases, options.seed), 1):
            row = judge(scratch, fault, expected)
            rows.append(row)
            if row["wrong"]:
                print(f"{number}. {row['fault']}: {row['wrong']}\n{row['output']}", flush=True)
    wrong = [row for row in rows if row["wrong"]]
    ended = Counter("tolerated" if row["code"] == 0 else "one message" for row in rows if not row["wrong"])
    print(f"{len(rows)} faults: {dict(ended)}, {len(wrong)} wrong")
    if options.save:
        from machine import machine

        table = {kind: Counter(str(row["code"]) for row in rows if row["kind"] == kind) for kind in ERRORS}
        result: dict[str, Any] = {"machine": machine(), "options": vars(options), "calls": outcome.calls}
        result |= {"by kind and exit code": table, "faults": len(rows), "wrong": [row["fault"] for row in wrong]}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "faults.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
