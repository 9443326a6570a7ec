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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bits import bits
from kills import children
from machine import machine

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from rarkit.cache.lock import Times  # noqa: E402
from rarkit.cache.output_folder import OutputFolder  # noqa: E402
from rarkit.cache.output_lock import OutputLock  # noqa: E402
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
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


def noting(journal: str, who: str, scale: float, arguments: list[str]) -> None:
    """The command `rarkit`, which notes in a journal each change that it makes to an output."""
    from rarkit.cli import main

    plain = OutputFolder._changing
    usual = Times()
    OutputLock.times = Times(**{name: scale * value for name, value in vars(usual).items()})
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @contextmanager
    def changing(self: OutputFolder) -> Iterator[None]:
        with plain(self):
            # After the check of the lock: what follows is written.
            moment = time.clock_gettime(time.CLOCK_BOOTTIME)
            os.write(file, f"{moment} {who} {'/'.join(self.path.rsplit('/', 2)[1:])}\n".encode())
            yield

    OutputFolder._changing = changing  # type: ignore[method-assign]
    sys.argv = ["rarkit", *arguments]
    main()


class Run:
    """A process of `rarkit run`."""

    def __init__(
        self, folder: Path, who: str, store: str, scale: float, *, recipe: str = "recipe.toml", **environment: str
    ) -> None:
        self.who, self.folder, self.log = who, folder, folder / f"{who}.txt"
        command = [sys.executable, __file__, "--as", str(folder / "journal.txt"), who, str(scale)]
        rarkit = ["run", str(folder / recipe), "--store", store, "--runs", str(folder / who), "--device", "cpu"]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [*UNSHARE, *command, *rarkit],
                stdout=output,
                stderr=output,
                env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
            )

    def signal(self, number: int) -> None:
        """Sends a signal to the process within its namespace."""
        for child in children(self.process.pid):
            os.kill(child, number)

    def end(self) -> int:
        return self.process.wait()

    @property
    def said(self) -> str:
        return self.log.read_text()


def writers(folder: Path) -> dict[str, list[str]]:
    """Who began to write each output, in order; the same one once in a row."""
    journal = folder / "journal.txt"
    lines = sorted(tuple(line.split()) for line in journal.read_text().splitlines()) if journal.exists() else []
    written: dict[str, list[str]] = {}
    for _, who, output in sorted(lines, key=lambda line: float(line[0])):
        order = written.setdefault(output, [])
        if not order or order[-1] != who:
            order.append(who)
    return written


def holder(folder: Path, stage: str, runs: list[Run]) -> Run:
    """Waits until one of the runs is writing a stage."""
    while True:
        for output, order in writers(folder).items():
            if output.startswith(f"{stage}/"):
                return next(run for run in runs if run.who == order[-1])
        assert any(run.process.poll() is None for run in runs), f"no run reached {stage}"
        time.sleep(0.01)


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


def refused(run: Run) -> str:
    """The error with which a run ended."""
    errors = [line for line in run.said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in run.said, run.said
    return errors[0] if errors else ""


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


def cut_off(
    folder: Path, seconds: float, stage: str, scale: float, expected: dict[str, str], server: str, *, alone: bool
) -> dict[str, Any]:
    """A run whose way to the store is cut off in a stage."""
    import s3fs

    fresh(folder)
    bucket = f"{folder.name}-{time.monotonic_ns()}"
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.mkdir(bucket)
    store = f"s3://{bucket}/store"
    with Way(server) as way:
        far = Run(folder, "far", store, scale, AWS_ENDPOINT_URL=way.url)
        holder(folder, stage, [far])
        near = None if alone else Run(folder, "near", store, scale)
        if near is not None:
            while "waiting for process" not in near.said:
                assert near.process.poll() is None, near.said
                time.sleep(0.05)
        way.cut()
        time.sleep(seconds)
        way.mend()
        row: dict[str, Any] = {"cut for": seconds, "stage": stage, "alone": alone}
        row["exit codes"] = {run.who: run.end() for run in (far, near) if run is not None}
        row["errors"] = sorted(filter(None, map(refused, [run for run in (far, near) if run is not None])))
        again = Run(folder, "again", store, scale, AWS_ENDPOINT_URL=way.url)
        assert again.end() == 0, again.said
        row["made again by a third run"] = [output for output, order in writers(folder).items() if "again" in order]
    files.get(f"{bucket}/store", str(folder / "store"), recursive=True)
    row |= judged(folder, expected)
    row["right"] = not row["written by two"] and row["same bits"] and (alone or row["exit codes"]["near"] == 0)
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
                add("cut", cut_off(place, seconds, stage, options.scale, expected, server, alone=False))
            add("cut, nobody else", left_alone(Path(scratch) / f"alone-{seconds:.0f}", seconds, options.scale, server))
    wrong = [row for row in rows if not row["right"]]
    print(f"{len(rows)} rounds, {len(wrong)} wrong")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        about = {name: value for name, value in vars(options).items() if name != "save"}
        (RESULTS / "locks.json").write_text(json.dumps({"machine": machine(), "options": about, "rows": rows}, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        noting(sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5:])
    main()
