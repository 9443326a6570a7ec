"""Mutated recipes through ``rarkit validate`` and ``rarkit plan``: each is planned, or refused with a message that helps.

    python benchmarks/mutated_recipes.py [--cases 5000] [--seed 0] [--messages FILE] [--save]

Takes the recipes of recipes/ and tests/data/small.toml in turn and changes each in one to three places
(`tests/mutated_recipes.py`):
values become nonsense of every type and size, tables lose keys or move, the text itself is cut, repeated and disturbed, addresses
lead nowhere. Both commands must end within 10 seconds, with less than 1 GiB of memory and exit code 0 or 2, without a traceback. A
message has one to three lines, names a file, an address or a setting, and ends in a sentence. `--messages` writes the messages,
without what differs from case to case.

The cases run in forked processes, each a hundred, with limits; a process that dies or hangs is the fault of its case.
Exits with 1 where something does not hold. `--save` writes benchmarks/results/mutated_recipes.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.mutated_recipes import Outcome, faults_of, kinds, mutant, outcomes, plain, recipes  # noqa: E402  (found by the line above)

RESULTS = Path(__file__).parent / "results"
BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--messages", type=Path)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    sources, mutations, codes = recipes(), Counter[str](), Counter[str]()
    faults: list[str] = []
    messages: dict[str, int] = Counter()
    slowest, largest = Outcome("", 0, "", 0.0, 0), Outcome("", 0, "", 0.0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        for first in range(0, arguments.cases, BATCH):
            numbers = range(first, min(first + BATCH, arguments.cases))
            cases = []
            for number in numbers:
                chance = random.Random(f"{arguments.seed} {number}")
                text, how = mutant(chance, sources[number % len(sources)])
                mutations.update(how)
                cases.append((f"case {number} ({', '.join(how)})", text))
            for outcome in outcomes(cases, Path(scratch)):
                codes[f"{outcome.command} {outcome.code}"] += 1
                slowest = max(slowest, outcome, key=lambda one: one.seconds)
                largest = max(largest, outcome, key=lambda one: one.memory)
                faults += (told := faults_of(outcome))
                for line in told:
                    print(line, flush=True)
                if outcome.code:
                    messages[plain(outcome.stderr)] += 1
            print(f"{numbers.stop:,} of {arguments.cases:,} recipes: {len(faults)} faults", flush=True)
    if arguments.messages:
        arguments.messages.write_text("\n\n".join(f"{count} × {message}" for message, count in sorted(messages.items())))
    from machine import machine

    result = {
        "machine": machine(),
        "recipes": arguments.cases,
        "seed": arguments.seed,
        "sources": len(sources),
        "mutations": dict(sorted(mutations.items())),
        "exit codes": dict(sorted(codes.items())),
        "distinct messages": len(messages),
        "slowest": {"seconds": round(slowest.seconds, 1), "case": f"{slowest.command} of {slowest.case}"},
        "largest": {"MiB": round(largest.memory / 2**20), "case": f"{largest.command} of {largest.case}"},
        "wrong": faults,
    }
    print(json.dumps(result, indent=2))
    assert set(mutations) <= set(kinds())
    if arguments.save:
        (RESULTS / "mutated_recipes.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
