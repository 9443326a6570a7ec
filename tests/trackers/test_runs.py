"""Runs with trackers: what they are told, where it goes, and that the result does not depend on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rarkit
from rarkit.errors import CapabilityError
from rarkit.registry import registered
from tests.pipeline.stopped import stopped_in_training
from tests.processes import call, call_ranks
from tests.processes import rarkit as command

TENSORBOARD = 'trackers=[{name="tensorboard"}]'


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(registered, "_registered", {})
    monkeypatch.delenv("RARKIT_ALLOW_TRACKING", raising=False)


@pytest.fixture
def store(small_finished, tmp_path):
    """A store that training comes next in."""
    shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    for stage in ("train", "sample", "evaluate"):
        shutil.rmtree(tmp_path / "store" / stage)
    return str(tmp_path / "store")


@pytest.fixture
def arguments(small_recipe, store, tmp_path):
    return [
        "run",
        small_recipe,
        "--set",
        TENSORBOARD,
        "--store",
        store,
        "--runs",
        tmp_path / "runs",
        "--device",
        "cpu",
        "--until",
        "train",
    ]


class Listening(rarkit.Tracker):
    """Keeps the steps it is told of; sends them to somebody if it is said to."""

    name: Literal["listening"] = "listening"
    aloud: bool = False
    """Whether it sends them."""
    heard: ClassVar[list] = []

    def sends_to(self):
        return "somebody.example" if self.aloud else None

    def open(self, run):
        self.heard.append(run)
        return Heard(self.heard)


class Heard(rarkit.OpenTracker):
    def __init__(self, heard):
        self.heard = heard

    def log(self, step, numbers):
        self.heard.append((step, dict(numbers)))

    def image(self, step, name, image_HWC):
        raise NotImplementedError

    def close(self):
        self.heard.append("closed")


def logged(folder):
    """The numbers of log.jsonl, by name."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {f"train/{name}": [(row["step"], row[name]) for row in rows] for name in rows[0] if name not in ("stage", "step")}


def shown(folder):
    """What TensorBoard shows, by name."""
    events = EventAccumulator(str(folder / "tracking" / "tensorboard"), {"scalars": 0})
    events.Reload()
    return {name: [(one.step, pytest.approx(one.value)) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_they_decide_nothing(small_recipe, small_finished, store):
    recipe = rarkit.load_recipe(small_recipe, [TENSORBOARD])
    assert rarkit.plan(recipe, small_finished.plan.store).nothing_to_do
    assert recipe.content_digest == rarkit.load_recipe(small_recipe).content_digest
    assert recipe.replace({"trackers": []}).trackers == ()


def test_a_training_that_was_interrupted_is_shown_once(arguments, store, small_finished, tmp_path):
    stopped = call(tmp_path, stopped_in_training, "SIGTERM", 3, False, *arguments, "--set", "train.checkpoint_every=100")
    assert stopped.returncode == 143, stopped.stderr
    (tmp_path / "again").mkdir()
    ended = call(tmp_path / "again", command, *arguments, "--set", "train.checkpoint_every=100")
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "runs" / "small"
    assert shown(folder) == logged(folder)
    assert [step for step, _ in shown(folder)["train/loss"]] == [0, 1, 2, 3, 4, 5]
    roots = (store, small_finished.plan.store.root)
    tracked, untracked = (path.read_bytes() for root in roots for path in Path(root, "train").rglob("model.safetensors"))
    assert tracked == untracked


def test_the_first_rank_alone_tracks(arguments, tmp_path):
    ended = call_ranks(2, tmp_path, command, *arguments)
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "runs" / "small"
    [_] = (folder / "tracking" / "tensorboard").iterdir()
    assert shown(folder) == logged(folder)


def test_a_run_is_read_where_its_trackers_are_unknown(small_recipe, store, tmp_path, monkeypatch):
    monkeypatch.setattr(Listening, "heard", [])
    recipe = rarkit.load_recipe(small_recipe).replace({"trackers": [rarkit.register(Listening)]})
    run = rarkit.run(recipe, store, runs=tmp_path / "runs", device="cpu", quiet=True)
    told, *steps, closed = Listening.heard
    assert (told.recipe, told.folder, told.step) == ("small", run.folder / "tracking" / "listening", 0)
    assert told.settings == recipe.model_dump(mode="json")
    names = ["train/loss", "train/accuracy", "train/gradient_norm", "train/learning_rate", "train/random_ratio"]
    assert [(step, list(numbers)) for step, numbers in steps] == [(step, names) for step in range(6)]
    assert closed == "closed"
    monkeypatch.setattr(registered, "_registered", {})
    assert len(rarkit.sample(run.folder, [0], 1, device="cpu", quiet=True).images_NHWC) == 1


def test_what_a_recipe_would_send_away_is_refused_unless_it_is_allowed(small_recipe, store, tmp_path, monkeypatch):
    monkeypatch.setattr(Listening, "heard", [])
    rarkit.register(Listening)
    recipe = rarkit.load_recipe(small_recipe, ['trackers=[{name="listening", aloud=true}]'])
    places = {"store": store, "runs": tmp_path / "runs", "device": "cpu", "quiet": True}
    with pytest.raises(
        CapabilityError, match=r"^\[\[trackers\]\] 'listening' cannot be used here: it sends .* to somebody\.example"
    ):
        rarkit.run(recipe, **places)
    assert not (tmp_path / "runs").exists()
    rarkit.run(recipe, **places, until="train", allow_tracking=["listening"])
    assert Listening.heard[-1] == "closed"


def test_a_plan_says_who_tracks_and_what_is_missing(small_recipe, tmp_path):
    planned = call(tmp_path, command, "plan", small_recipe, "--set", TENSORBOARD, "--json")
    assert json.loads(planned.stdout)["trackers"] == [{"name": "tensorboard", "sends_to": None}]
    (tmp_path / "text").mkdir()
    assert "tracked by tensorboard\n" in call(tmp_path / "text", command, "plan", small_recipe, "--set", TENSORBOARD).stdout
