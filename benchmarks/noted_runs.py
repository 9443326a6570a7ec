"""Runs of rarkit in pid namespaces of their own, which note when they begin to change an output. Needs Linux and unshare."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kills import children

sys.path.insert(0, str(Path(__file__).parents[1]))
from rarkit.cache.lock import Times
from rarkit.cache.output_folder import OutputFolder
from rarkit.cache.output_lock import OutputLock

UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


class Run:
    """A process of `rarkit run`."""

    def __init__(
        self, folder: Path, who: str, store: str, scale: float, *, recipe: str = "recipe.toml", **environment: str
    ) -> None:
        self.who, self.folder, self.log = who, folder, folder / f"{who}.txt"
        command = [sys.executable, __file__, str(folder / "journal.txt"), who, str(scale)]
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


def refused(run: Run) -> str:
    """The error with which a run ended."""
    errors = [line for line in run.said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in run.said, run.said
    return errors[0] if errors else ""


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


if __name__ == "__main__":
    noting(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
