"""The plugin meets rarkit's contract of a tracker, with W&B's own files, and sends nothing that nobody allowed."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rarkit
from rarkit import TrackedRun
from rarkit.errors import CapabilityError
from rarkit.testing import TrackerSuite
from rarkit_wandb import WandB

BLOCK, HEADER = 32768, 7
"""Sizes in W&B's files: logs of records as LevelDB writes them, after a header of as many bytes."""


def records(path):
    """The records in a file of W&B's."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = path.read_bytes(), HEADER, []
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        parts.append(data[place + HEADER : place + HEADER + length])
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts.clear()
            yield record


def kept(folder):
    """All records of a tracker's folder, in the order of its runs."""
    import wandb

    # A process of W&B's writes them, a moment after the run is closed.
    wandb.teardown()
    return [record for path in sorted(folder.glob("wandb/*run-*/*.wandb")) for record in records(path)]


def rows(folder):
    """The steps that are kept, each with its numbers."""
    for record in kept(folder):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            step = items["_step"]
            yield step, {name: item for name, item in items.items() if not name.startswith("_")}


class TestWandB(TrackerSuite):
    parts = (WandB(),)

    def tracked(self, folder):
        shown = {}
        for step, items in rows(folder):
            for name, number in items.items():
                shown.setdefault(name, []).append((step, number))
        return shown


class TestOnline(TrackerSuite):
    """Its settings; what would send is left out."""

    parts = (WandB(mode="online", entity="a-team"),)


def test_the_installed_plugin_is_found():
    trackers = rarkit.parts(strict=True).trackers
    assert trackers["wandb"] is WandB
    assert trackers.source("wandb").distribution == "rarkit-wandb"


def test_it_says_that_it_sends(monkeypatch):
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert WandB().sends_to() is None
    assert WandB(mode="online").sends_to() == "Weights & Biases"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert WandB(mode="online").sends_to() == "https://wandb.example"


def test_a_recipe_alone_sends_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("RARKIT_ALLOW_TRACKING", raising=False)
    recipe = rarkit.make_recipe(
        dataset="digits",
        tokenizer="pixel",
        model={"hidden_size": 8, "depth": 1, "num_heads": 2},
        train={"steps": 2, "batch_size": 2},
        trackers=[WandB(mode="online")],
    )
    with pytest.raises(CapabilityError, match=r"'wandb' cannot be used here: it sends .*--allow-tracking wandb"):
        rarkit.run(recipe, str(tmp_path / "store"), runs=tmp_path / "runs", device="cpu", quiet=True)
    assert not (tmp_path / "runs").exists()


def test_without_a_key_it_does_not_ask(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(CapabilityError, match="W&B has no key here"):
        WandB(mode="online").open(TrackedRun("r", tmp_path, {}))


def test_settings_and_pictures_are_kept(tmp_path):
    with WandB(project="a project").open(TrackedRun("a recipe", tmp_path, {"train": {"steps": 8}})) as tracker:
        tracker.log(0, {"train/loss": 0.5})
        for channels in (1, 3):
            tracker.image(0, f"previews/{channels}", np.zeros((4, 6, channels), np.uint8))
    [run] = [record.run for record in kept(tmp_path) if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("a project", "a recipe")
    config = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
    assert config["train"] == {"steps": 8}
    [(step, items)] = rows(tmp_path)
    assert step == 0
    assert items["train/loss"] == 0.5
    assert [[items[f"previews/{channels}.{side}"] for side in ("height", "width")] for channels in (1, 3)] == [[4, 6], [4, 6]]
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/previews/*.png"))) == 2


def test_a_training_that_goes_on_has_the_same_id_and_a_new_one_another(tmp_path):
    names = []
    for step in (0, 3, 0):
        with WandB().open(TrackedRun("r", tmp_path, {}, step)) as tracker:
            tracker.log(step, {"train/loss": 0.5})
        names.append((tmp_path / "run-id").read_text())
    assert names[0] == names[1] != names[2]


OFFLINE = """
import sys
from pathlib import Path
from rarkit import TrackedRun
from rarkit_wandb import WandB

calls, events = [], ("socket.getaddrinfo", "socket.connect")
sys.addaudithook(lambda event, values: calls.append((event, str(values))) if event in events else None)
with WandB().open(TrackedRun("r", Path(sys.argv[1]), {})) as tracker:
    tracker.log(0, {"train/loss": 0.5})
print([call for call in calls if "('" in call[1] or call[0] == "socket.getaddrinfo"])
"""


def test_offline_nothing_leaves_this_machine(tmp_path):
    """Neither from Python, which asks for no address, nor from W&B's own process, which reports no errors of its own."""
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    [log] = tmp_path.glob("wandb/offline-run-*/logs/debug-core.log")
    assert '"disable-analytics":true' in log.read_text()


def test_the_readme_shows_settings_that_there_are():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    [table] = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    [settings] = tomllib.loads(table)["trackers"]
    assert rarkit.parts().trackers["wandb"](**settings) == WandB(project="digits")
