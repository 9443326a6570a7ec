"""Several runs on one store, disturbed: no output is written by two, and nothing is lost.

    python benchmarks/locks.py [--rounds 3] [--cuts 60 90] [--scale 1] [--seed 0] [--save]

*Containers*: two processes in pid namespaces of their own, under one host name, run the same recipe on one store. In turn nothing
else happens; the one that holds the lock of a stage drawn at random is killed; or it is stopped for as long as it takes the other
to take over, and then goes on. *Cuts*: a run reaches its store, on an S3 server on loopback, over a proxy that forwards nothing for
so many seconds, while another run reaches it directly and needs the same; and once while nobody else does, in a training that has
nothing to write meanwhile.

Each process notes when it begins to change an output. Afterwards nobody may have written an output after another has begun to,
all outputs must be whole, and their bits those of an undisturbed run. `--scale` shortens all times of the locks. `--save` writes
benchmarks/results/locks.json. Needs Linux and unshare.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bits import bits
from machine import machine
from noted_runs import Run, holder, refused, writers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.cut_off import Way  # noqa: E402  (found by the line above)

RESULTS = Path(__file__).parent / "results"
RECIPE = f"""extends = "{ROOT}/tests/data/small.toml"
[train]
steps = 400
checkpoint_every = 20
"""
ALONE = """extends = "recipe.toml"
[train]
steps = {steps}
checkpoint_every = {steps}
checkpoint_minutes = 1000
"""
STAGES = ("fit", "train", "sample", "evaluate")


def fresh(folder: Path) -> Path:
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def judged(folder: Path, expected: dict[str, str]) -> dict[str, Any]:
    """Whether anything was written by two or differs. An output is passed on once at most: nobody comes back to it."""
    written = writers(folder)
    return {
        "written by two": sorted(output for output, order in written.items() if len(order) != len(set(order))),
        "taken over": sum(len(order) - 1 for order in written.values()),
        "same bits": stored(folder) == expected,
    }


def stored(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in bits(folder).items() if not name.startswith("runs ")}


def containers(folder: Path, event: str, stage: str, scale: float, expected: dict[str, str]) -> dict[str, Any]:
    """Two containers, one of which is disturbed in a stage."""
    store = str(fresh(folder) / "store")
    runs = [Run(folder, who, store, scale) for who in ("one", "two")]
    row: dict[str, Any] = {"event": event, "stage": stage}
    if event != "nothing":
        victim = holder(folder, stage, runs)
        other = next(run for run in runs if run is not victim)
        victim.signal(signal.SIGKILL if event == "kill" else signal.SIGSTOP)
        row["other's exit code"] = other.end()
        if event == "stop":
            victim.signal(signal.SIGCONT)
        row["waited for"] = "waiting for process" in other.said
    codes = {run.who: run.end() for run in runs}
    row |= {"exit codes": codes, "errors": sorted(filter(None, map(refused, runs)))}
    row |= judged(folder, expected)
    fine = {"nothing": [0, 0], "stop": None, "kill": None}[event]
    survivor = 0 if event == "nothing" else row["other's exit code"]
    row["right"] = not row["written by two"] and row["same bits"] and survivor == 0 and fine in (None, list(codes.values()))
    return row


def cut_off(folder: Path, seconds: float, stage: str, scale: float, expected: dict[str, str], server: str) -> dict[str, Any]:
    """A run whose way to the store is cut off in a stage, while another one needs the same."""
    import s3fs

    fresh(folder)
    bucket = f"{folder.name}-{time.monotonic_ns()}"
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.mkdir(bucket)
    store = f"s3://{bucket}/store"
    with Way(server) as way:
        far = Run(folder, "far", store, scale, AWS_ENDPOINT_URL=way.url)
        holder(folder, stage, [far])
        # At once: while the other run starts, this one would be done with a short stage.
        way.cut()
        begun = time.monotonic()
        near = Run(folder, "near", store, scale)
        while "waiting for process" not in near.said:
            assert near.process.poll() is None, near.said
            time.sleep(0.05)
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        way.mend()
        row: dict[str, Any] = {"cut for": seconds, "stage": stage, "exit codes": {run.who: run.end() for run in (far, near)}}
        row["errors"] = sorted(filter(None, map(refused, (far, near))))
        again = Run(folder, "again", store, scale, AWS_ENDPOINT_URL=way.url)
        assert again.end() == 0, again.said
        row["made again by a third run"] = [output for output, order in writers(folder).items() if "again" in order]
    files.get(f"{bucket}/store", str(folder / "store"), recursive=True)
    row |= judged(folder, expected)
    row["right"] = not row["written by two"] and row["same bits"] and row["exit codes"]["near"] == 0
    return row


def left_alone(folder: Path, seconds: float, scale: float, server: str) -> dict[str, Any]:
    """A training with nothing to write is cut off: it goes on as if nothing had happened."""
    import s3fs

    fresh(folder)
    steps = int(500 * seconds)
    (folder / "alone.toml").write_text(ALONE.format(steps=steps))
    bucket = f"alone-{time.monotonic_ns()}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    with Way(server) as way:
        run = Run(folder, "far", f"s3://{bucket}/store", scale, recipe="alone.toml", AWS_ENDPOINT_URL=way.url)
        holder(folder, "train", [run])
        time.sleep(2)
        way.cut()
        time.sleep(seconds)
        trained = run.process.poll() is None and "train: done" not in run.said
        way.mend()
        code = run.end()
    row = {"cut for": seconds, "training went on": trained, "exit code": code, "errors": [refused(run)] if code else []}
    row["said"] = [line for line in run.said.splitlines() if "cannot be renewed" in line]
    row["right"] = code == 0 and trained
    return row


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3 server on loopback, to which the environment points."""
    from moto.server import ThreadedMotoServer

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update({"AWS_ENDPOINT_URL": url, **keys})
    try:
        yield url
    finally:
        server.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3, help="rounds of each kind of event between containers")
    arguments.add_argument("--cuts", type=float, nargs="*", default=[60.0, 90.0], metavar="SECONDS")
    arguments.add_argument("--scale", type=float, default=1.0, help="multiply all times of the locks")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/locks.json")
    options = arguments.parse_args()
    chance, rows = random.Random(options.seed), []
    with tempfile.TemporaryDirectory(prefix="rarkit-locks-") as scratch, s3_server() as server:
        folder = fresh(Path(scratch) / "undisturbed")
        run = Run(folder, "one", str(folder / "store"), options.scale)
        assert run.end() == 0, run.said
        expected = stored(folder)

        def add(kind: str, row: dict[str, Any]) -> None:
            rows.append({"kind": kind, **row})
            print(json.dumps(rows[-1]), flush=True)

        for number in range(options.rounds):
            for event in ("nothing", "kill", "stop"):
                place = Path(scratch) / f"{event}-{number}"
                add("containers", containers(place, event, chance.choice(STAGES), options.scale, expected))
        for seconds in options.cuts:
            for stage in ("train", "sample"):
                place = Path(scratch) / f"cut-{seconds:.0f}-{stage}"
                add("cut", cut_off(place, seconds, stage, options.scale, expected, server))
            add("cut, nobody else", left_alone(Path(scratch) / f"alone-{seconds:.0f}", seconds, options.scale, server))
    wrong = [row for row in rows if not row["right"]]
    print(f"{len(rows)} rounds, {len(wrong)} wrong")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        about = {name: value for name, value in vars(options).items() if name != "save"}
        (RESULTS / "locks.json").write_text(json.dumps({"machine": machine(), "options": about, "rows": rows}, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
