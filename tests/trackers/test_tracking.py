"""A training tells its trackers everything in order, and never waits for one, whatever that does."""

from __future__ import annotations

import dataclasses
import re
import sys
import threading
from contextlib import nullcontext
from typing import ClassVar, Literal

import numpy as np
import pytest

from rarkit import OpenTracker, TrackedRun, Tracker
from rarkit.errors import CapabilityError, PluginError, RarkitWarning, StoreError, UserError
from rarkit.trackers import feed, tracking
from rarkit.trackers.consent import allowing, refusal
from rarkit.trackers.tracking import open_trackers, untracked


class Recorder(OpenTracker):
    """Keeps what it is told, and does ``act`` first, given the number of calls so far."""

    def __init__(self, act):
        self.act, self.told, self.threads, self.calls = act, [], {threading.current_thread()}, -1

    def _record(self, *call):
        self.threads.add(threading.current_thread())
        self.calls += 1
        self.act(self.calls, call[0])
        self.told.append(call)

    def log(self, step, numbers):
        self._record("log", step, numbers)

    def image(self, step, name, image_HWC):
        self._record("image", step, name, image_HWC.tolist())

    def close(self):
        self._record("close")


class Recording(Tracker):
    """Keeps what it is told."""

    name: Literal["recording"] = "recording"
    act: ClassVar = staticmethod(lambda count, call: None)
    opened: ClassVar[list] = []

    def open(self, run):
        self.act(-1, "open")
        self.opened.append(Recorder(self.act))
        return self.opened[-1]


class Sending(Tracker):
    """Sends all it is told to somebody."""

    name: Literal["sending"] = "sending"

    def sends_to(self):
        return "somebody.example"

    def open(self, run):
        return Recorder(lambda count, call: None)


class Upward(Tracker):
    """Has a name that is a folder's."""

    name: Literal[".."] = ".."
    folders: ClassVar[list] = []

    def open(self, run):
        self.folders.append(run.folder)
        return Recorder(lambda count, call: None)


@pytest.fixture
def run(tmp_path):
    return TrackedRun("a recipe", tmp_path, {"title": "a recipe"}, 7)


@pytest.fixture
def acting(monkeypatch):
    """A part that does something at each call; it returns the part, and the open trackers of it."""
    monkeypatch.setattr(Recording, "opened", [])

    def acting(act=lambda count, call: None):
        monkeypatch.setattr(Recording, "act", staticmethod(act))
        return Recording(), Recording.opened

    return acting


def raising(error, at):
    def act(count, call):
        if at in (count, call):
            raise error

    return act


def train(parts, run, steps, then=lambda trackers: None):
    with open_trackers(parts, run) as trackers:
        for step in steps:
            trackers.log(step, {"loss": 1.0})
        then(trackers)


def steps_told(opened):
    return [call[1] for call in opened[0].told if call[0] == "log"]


def test_everything_is_told_in_order_in_one_thread(acting, run):
    part, opened = acting()
    image_HWC = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    with open_trackers((part,), run) as trackers:
        for step in range(8, 11):
            trackers.log(step, {"loss": np.float32(step)})
        trackers.image(10, "previews", image_HWC)
        image_HWC[:] = 0
    shown = np.arange(12).reshape(2, 2, 3).tolist()
    numbers = [("log", step, {"loss": float(step)}) for step in range(8, 11)]
    assert opened[0].told == [*numbers, ("image", 10, "previews", shown), ("close",)]
    assert len(opened[0].threads) == 1
    assert threading.main_thread() not in opened[0].threads


def test_each_has_numbers_and_a_folder_of_its_own(tmp_path, acting, run):
    folders: ClassVar[list] = []
    part, opened = acting()

    class Another(Tracker):
        """Changes what it is given."""

        name: Literal["another"] = "another"

        def open(self, run):
            folders.append(run.folder)
            assert (run.recipe, run.settings, run.step) == ("a recipe", {"title": "a recipe"}, 7)
            return Clearing(lambda count, call: None)

    class Clearing(Recorder):
        def log(self, step, numbers):
            numbers.clear()

    with open_trackers((Another(), part), run) as trackers:
        trackers.log(8, {"loss": 1.0})
    assert opened[0].told[0] == ("log", 8, {"loss": 1.0})
    assert folders == [tmp_path / "tracking" / "another"]
    assert sorted(path.name for path in (tmp_path / "tracking").iterdir()) == ["another", "recording"]


def test_a_tokenizers_training_has_a_folder_of_its_own(tmp_path, acting, run):
    part, opened = acting()
    for stage in ("fit", "train"):
        with open_trackers((part,), dataclasses.replace(run, stage=stage)) as trackers:
            trackers.log(8, {"loss": 1.0})
    assert len(opened) == 2
    assert sorted(path.name for path in (tmp_path / "tracking").iterdir()) == ["recording", "recording-fit"]


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (
            ValueError("boom"),
            PluginError,
            r"the tracker 'recording' of .*Recording raised ValueError: boom when it was opened\. Cor",
        ),
        (SystemExit(3), PluginError, "raised SystemExit: 3 when it was opened"),
        (UserError("There is no key. Log in."), UserError, r"^There is no key\. Log in\.$"),
    ],
)
def test_what_does_not_open_ends_the_run_and_closes_the_others(acting, run, error, raised, message):
    part, opened = acting()

    class Failing(Tracker):
        """Raises an error."""

        name: Literal["failing"] = "failing"

        def open(self, run):
            raise error

    failing, _ = (Failing(), None) if raised is UserError else acting(raising(error, "open"))
    message = message.replace("recording", failing.name).replace("Recording", type(failing).__name__)
    with pytest.raises(raised, match=message), open_trackers((Sound(), failing), run):
        raise AssertionError("it goes on")
    assert not opened
    assert Sound.opened[-1].told == [("close",)]
    assert part is not None


class Sound(Tracker):
    """Works."""

    name: Literal["sound"] = "sound"
    opened: ClassVar[list] = []

    def open(self, run):
        self.opened.append(Recorder(lambda count, call: None))
        return self.opened[-1]


@pytest.mark.parametrize("error", [OSError("No space left on device"), SystemExit(0), KeyboardInterrupt(), RecursionError("deep")])
def test_one_that_raises_is_left_out_and_the_training_goes_on(acting, run, error):
    part, opened = acting(raising(error, 2))
    with pytest.warns(RarkitWarning) as warned:
        train((part, Sound()), run, range(8, 20))
    told = [str(warning.message) for warning in warned]
    assert len(told) == 2
    assert re.match(rf"the tracker 'recording' of .*Recording raised {type(error).__name__}.*", told[0])
    assert told[1].endswith("lacks 10 of the records of this training.")
    assert steps_told(opened) == [8, 9]
    assert opened[0].told[-1] == ("close",)
    assert len(Sound.opened[-1].told) == 13


def test_it_is_told_while_the_training_goes_on(acting, run):
    failed = threading.Event()

    def act(count, call):
        if call == "close":
            failed.set()
        elif count == 0:
            raise OSError("No space left on device")

    def then(trackers):
        assert failed.wait(60)
        with pytest.warns(RarkitWarning, match="No space left on device: it is left out from now on, and the training goes on"):
            trackers.log(9, {})

    part, _ = acting(act)
    with pytest.warns(RarkitWarning, match="lacks"):
        train((part,), run, [8], then)


def test_one_that_cannot_be_closed_says_so(acting, run):
    part, _ = acting(raising(ValueError("boom"), "close"))
    with pytest.warns(RarkitWarning, match=r"Recording raised ValueError: boom\.$"):
        train((part,), run, [8])


def test_one_that_hangs_keeps_nobody(acting, run, monkeypatch):
    """What there is no room for is left out, the end waits for a while, and what was lost is told."""
    monkeypatch.setattr(feed, "MOST_WAITING", 3)
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 0.01)
    hanging, going_on = threading.Event(), threading.Event()

    def act(count, call):
        if count == 1:
            hanging.set()
            assert going_on.wait(60)

    def then(trackers):
        assert hanging.wait(60)
        for step in range(10, 20):
            trackers.log(step, {})

    part, opened = acting(act)
    with pytest.warns(RarkitWarning) as warned:
        train((part,), run, [8, 9], then)
    going_on.set()
    told = [str(warning.message) for warning in warned]
    assert [re.sub(".*Recording ", "", message) for message in told] == [
        "does not keep up with the training, or hangs: what comes while too much waits for it is left out.",
        "has not ended 0.01 seconds after the training, and is left behind.",
        "lacks 11 of the records of this training.",
    ]
    assert steps_told(opened)[:1] == [8]


def test_pictures_that_wait_have_bounds_in_bytes(acting, run, monkeypatch):
    monkeypatch.setattr(feed, "MOST_BYTES", 100)
    hanging, going_on = threading.Event(), threading.Event()

    def act(count, call):
        if count == 0:
            hanging.set()
            assert going_on.wait(60)

    def then(trackers):
        assert hanging.wait(60)
        for step in range(9, 13):
            trackers.image(step, "previews", np.zeros((5, 10, 1), np.uint8))
        trackers.log(13, {})
        going_on.set()

    part, opened = acting(act)
    with pytest.warns(RarkitWarning) as warned:
        train((part,), run, [8], then)
    assert str(warned[-1].message).endswith("lacks 2 of the records of this training.")
    assert [call[1] for call in opened[0].told[:-1]] == [8, 9, 10, 13]


def test_one_that_hangs_when_it_is_opened_is_an_error(acting, run, monkeypatch):
    monkeypatch.setattr(feed, "OPENING_SECONDS", 0.01)
    going_on, before = threading.Event(), set(threading.enumerate())
    part, opened = acting(lambda count, call: going_on.wait(60))
    with (
        pytest.raises(PluginError, match=r"is not open after 0\.01 seconds. Correct that, or leave it out"),
        open_trackers((part,), run),
    ):
        raise AssertionError("it goes on")
    going_on.set()
    # It opens late, which must not happen in the next test.
    [opening] = [thread for thread in threading.enumerate() if thread not in before]
    opening.join(60)
    assert len(opened) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("of the training")])
def test_what_ends_the_training_passes_after_all_was_told(acting, run, error, monkeypatch):
    monkeypatch.setattr(tracking, "HURRIED_SECONDS", 60.0)

    def then(trackers):
        raise error

    part, opened = acting()
    with pytest.raises(type(error)):
        train((part,), run, range(100), then)
    assert steps_told(opened) == list(range(100))
    assert opened[0].told[-1] == ("close",)


def test_without_trackers_nothing_is_written(tmp_path, run):
    for opened in (open_trackers((), run), untracked(7)):
        with opened as trackers:
            trackers.log(8, {"loss": 1.0})
            trackers.image(8, "previews", np.zeros((2, 2, 1), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_name_leads_to_no_other_folder(tmp_path, run):
    with open_trackers((Upward(),), run):
        pass
    assert Upward.folders == [tmp_path / "tracking" / "_.."]


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("link", ["tracking", "tracking/recording"])
def test_nothing_is_written_through_a_link(tmp_path, acting, link):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / link).parent.mkdir(parents=True)
    (tmp_path / "run" / link).symlink_to(tmp_path / "elsewhere")
    part, opened = acting()
    with pytest.raises(StoreError), open_trackers((part,), TrackedRun("r", tmp_path / "run", {})):
        raise AssertionError("it goes on")
    assert not opened
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_is_sent_away_needs_the_consent_of_whoever_runs(run, monkeypatch):
    monkeypatch.delenv("RARKIT_ALLOW_TRACKING", raising=False)
    cure = r"Allow it with --allow-tracking sending .*allow_tracking=\['sending'\].*RARKIT_ALLOW_TRACKING=sending"
    with (
        pytest.raises(CapabilityError, match=rf"'sending': it sends .* to somebody\.example, .*{cure}"),
        open_trackers((Sending(),), run),
    ):
        raise AssertionError("it goes on")
    for names, allowed in ((["another"], False), (["another", "sending"], True)):
        with allowing(names):
            assert (refusal(Sending()) is None) == allowed
    assert refusal(Sending()) is not None
    for names, allowed in (("", False), ("all", False), ("another,sending", True), (" sending ", True)):
        monkeypatch.setenv("RARKIT_ALLOW_TRACKING", names)
        with open_trackers((Sending(),), run) if allowed else nullcontext():
            assert (refusal(Sending()) is None) == allowed
