"""Trackers that break the promise which ``fault`` names."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Literal, final

from rarkit import OpenTracker, Tracker


def tracked(suite, folder):
    """What ``Lines`` keeps, for the suite: its method of this name."""
    shown = {}
    for line in (folder / "lines.jsonl").read_text().splitlines():
        step, numbers = json.loads(line)
        for name, number in numbers.items():
            shown.setdefault(name, []).append((step, number))
    return shown


@final
class Lines(Tracker):
    """A line of JSON for each step, with a fault."""

    name: Literal["lines"] = "lines"
    fault: Literal[
        "none",
        "mute",
        "returns",
        "slashes",
        "main_thread",
        "global",
        "forgets",
        "rounds",
        "grey",
        "colour",
        "buffered",
        "empty",
        "finite",
        "writes_numbers",
        "writes_image",
        "new_folder",
        "twice",
        "cut_off",
        "working_folder",
        "beside",
        "undead",
    ] = "none"
    """What is wrong."""

    def sends_to(self):
        return "" if self.fault == "mute" else None

    def open(self, run):
        if self.fault == "returns":
            return object()
        if self.fault == "main_thread":
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        if self.fault == "new_folder":
            (run.folder / "made").mkdir()
        if self.fault == "undead":
            threading.Thread(target=time.sleep, args=(2,), name="undead", daemon=False).start()
        path = run.folder / "lines.jsonl"
        lines = path.read_text().splitlines() if path.exists() and self.fault != "cut_off" else []
        kept = [line for line in lines if self.fault == "twice" or json.loads(line)[0] < run.step]
        return OpenLines(self.fault, path, kept)


@final
class OpenLines(OpenTracker):
    def __init__(self, fault, path, lines):
        self.fault, self.path, self.lines = fault, path, lines

    def log(self, step, numbers):
        if self.fault == "slashes":
            (self.path.parent / next(iter(numbers))).write_text("")
        if self.fault == "global":
            random.random()
        if self.fault == "finite":
            json.dumps(numbers, allow_nan=False)
        if self.fault == "working_folder":
            Path("stray").write_text("")
        if self.fault == "beside":
            (self.path.parents[1] / "stray").write_text("")
        own = {name: round(number) if self.fault == "rounds" else number for name, number in numbers.items()}
        if self.fault == "writes_numbers":
            numbers.clear()
        if self.fault != "forgets" or step % 2:
            self.lines.append(json.dumps([step, own]))

    def image(self, step, name, image_HWC):
        assert image_HWC.shape[2] == {"grey": 1, "colour": 3}.get(self.fault, image_HWC.shape[2])
        if self.fault == "writes_image":
            image_HWC[:] = 0

    def close(self):
        if self.fault == "empty":
            self.lines[0]
        self.path.write_text("\n".join(self.lines[:-1] if self.fault == "buffered" else self.lines))
