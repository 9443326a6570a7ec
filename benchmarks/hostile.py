"""Every hostile input of tests/hostile by a fresh ``python -m rarkit``, also the slow ones, which the tests leave out.

    python benchmarks/hostile.py [--only WORD] [--save]

The tests fork the commands from a process that has imported nearly everything; here each is what a user starts. Prints what was
promised and did not hold, and exits with 1 if there is any. `--save` writes benchmarks/results/hostile.json. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import machine

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.hostile.conftest import finished_run
from tests.hostile.harness import MEMORY, PEAK, PROCESSOR_SECONDS, corpus, judged

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", metavar="WORD", help="entries with this in their name")
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/hostile.json")
    options = arguments.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rarkit-hostile-") as scratch:
        (folder := Path(scratch, "run")).mkdir()
        run = finished_run(folder)
        for number, name in enumerate(name for name in corpus() if options.only in name):
            ended = judged(name, Path(scratch, str(number)), run, fresh=True)
            rows[name] = {key: value for key, value in asdict(ended).items() if key not in ("stdout", "stderr")}
            if ended.complaints:
                print(name, *ended.complaints, ended.stdout, ended.stderr, sep="\n", flush=True)
    wrong = [name for name, row in rows.items() if row["complaints"]]
    print(f"{len(rows)} hostile inputs, {len(wrong)} of which did what they must not")
    if options.save:
        limits = {"memory": MEMORY, "peak": PEAK, "processor_seconds": PROCESSOR_SECONDS}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "hostile.json").write_text(json.dumps({"machine": machine(), "limits": limits, "rows": rows}, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
