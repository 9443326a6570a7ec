"""The conformance suite of trackers.

Shape letters: H, W, C height, width, channels of a picture.
"""

from __future__ import annotations

import os
import tempfile
import threading
from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from rarkit.testing.failure import require, trying
from rarkit.testing.part_suite import PartSuite, untouched_randomness
from rarkit.trackers.base import OpenTracker, TrackedRun, Tracker

SETTINGS = {"title": "A recipe", "seed": 0, "train": {"steps": 8, "rates": [0.1, 0.2]}, "evaluate": None}
NAMES = ("train/loss", "train/learning_rate", "held-out/bits_per_token.raster")
THREAD = "in a thread of its own"
Tracked = Mapping[str, Sequence[tuple[int, float]]]
"""For each name the steps with their numbers, in the order in which they are shown."""


class TrackerSuite(PartSuite, ABC):
    """Set ``parts`` to instances that send nothing away, and override ``tracked`` to have what they keep compared."""

    parts: ClassVar[Sequence[Tracker]] = ()

    def tracked(self, folder: Path) -> Tracked | None:
        """The numbers that a tracker keeps in its folder, as it would show them; None, the default, if that cannot be told."""
        return None

    def test_it_says_where_data_goes(self, part: Tracker) -> None:
        with trying(part, "asked whom it sends to", "sends_to returns whom in words, or None"):
            place = part.sends_to()
        well = place is None or (isinstance(place, str) and bool(place.strip()))
        require(well, part, "asked whom it sends to", f"returns {place!r}", "Return whom in words, or None")

    def test_it_takes_numbers_and_pictures(self, part: Tracker) -> None:
        with self._folder(part) as folder:
            given = f"told the numbers and pictures of 5 steps {THREAD}"
            told = {name: [(step, step / 4 + place) for step in range(5)] for place, name in enumerate(NAMES)}
            with untouched_randomness(part, given):
                self._track(part, folder, 0, given, lambda tracker: _tell(tracker, told))
            self._compare(part, folder, told, given)

    def test_it_takes_what_it_is_told_of_a_single_step(self, part: Tracker) -> None:
        with self._folder(part) as folder:
            told, given = {"train/loss": [(0, 0.5)]}, "told a number of one step, and closed"
            self._track(part, folder, 0, given, lambda tracker: _tell(tracker, told, pictures=()))
            self._compare(part, folder, told, given)

    def test_it_may_be_told_nothing(self, part: Tracker) -> None:
        with self._folder(part) as folder:
            self._track(part, folder, 0, "opened, and closed at once", lambda tracker: None)

    def test_numbers_need_not_be_finite(self, part: Tracker) -> None:
        with self._folder(part) as folder:
            numbers = {"train/loss": float("nan"), "train/gradient_norm": float("inf"), "train/rate": float("-inf"), "a": 1e300}
            self._track(part, folder, 0, f"told {numbers}", lambda tracker: tracker.log(0, numbers))

    def test_what_it_is_given_stays_as_it_is(self, part: Tracker) -> None:
        numbers, images = {"train/loss": 0.5, "train/rate": 0.1}, [_picture(channels) for channels in (1, 3)]
        kept, copies = dict(numbers), [image_HWC.copy() for image_HWC in images]

        def tell(tracker: OpenTracker) -> None:
            tracker.log(0, numbers)
            for number, image_HWC in enumerate(images):
                tracker.image(0, f"previews/{number}", image_HWC)

        with self._folder(part) as folder:
            self._track(part, folder, 0, "told numbers and pictures", tell)
        require(numbers == kept, part, "told numbers", "changes them", "Work on a copy")
        same = all(np.array_equal(*pair) for pair in zip(images, copies, strict=True))
        require(same, part, "shown a picture", "modifies it", "Work on a copy")

    def test_an_interrupted_training_goes_on(self, part: Tracker) -> None:
        first, then, whole = ({"train/loss": [(step, step / 4) for step in range(*steps)]} for steps in ((0, 7), (4, 10), (0, 10)))
        with self._folder(part) as folder:
            self._track(part, folder, 0, "told of steps 0 to 6", lambda tracker: _tell(tracker, first))
            given = "told of steps 4 to 9 after an interruption at step 6"
            self._track(part, folder, 4, given, lambda tracker: _tell(tracker, then))
            self._compare(part, folder, whole, given)

    def test_it_stays_in_its_folder(self, part: Tracker) -> None:
        before = os.getcwd()
        with self._folder(part) as folder, tempfile.TemporaryDirectory() as elsewhere:
            os.chdir(elsewhere)
            try:
                self._track(part, folder, 0, "told of a step", lambda tracker: _tell(tracker, {"train/loss": [(0, 0.5)]}))
            finally:
                os.chdir(before)
            strays = [*os.listdir(elsewhere), *(name for name in os.listdir(folder.parent) if name != folder.name)]
            require(not strays, part, "told of a step", f"writes {strays} outside its folder", "Write below run.folder alone")

    def test_nothing_keeps_the_process_when_it_is_closed(self, part: Tracker) -> None:
        threads = set(threading.enumerate())
        with self._folder(part) as folder:
            self._track(part, folder, 0, "told of a step", lambda tracker: _tell(tracker, {"train/loss": [(0, 0.5)]}))
        left = [thread.name for thread in threading.enumerate() if thread not in threads and not thread.daemon]
        require(
            not left, part, "closed", f"leaves threads that keep the process: {left}", "End them in close, or make them daemons"
        )

    @contextmanager
    def _folder(self, part: Tracker) -> Iterator[Path]:
        if (place := part.sends_to()) is not None:
            pytest.skip(f"{part!r} would send what it is told to {place}. Check it with settings that send nothing.")
        with tempfile.TemporaryDirectory(prefix="rarkit-tracker-") as folder:
            own = Path(folder).resolve() / "own"
            own.mkdir()
            yield own

    def _track(self, part: Tracker, folder: Path, step: int, given: str, tell: Callable[[OpenTracker], None]) -> None:
        """Opens the tracker, tells it something, and closes it, all in another thread, as a training does."""
        __tracebackhide__ = True
        errors: list[BaseException] = []

        def work() -> None:
            try:
                with part.open(TrackedRun("a recipe", folder, SETTINGS, step)) as tracker:
                    tell(tracker)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
        with trying(part, given, "A tracker takes any numbers and pictures, in a thread that is not the main one"):
            if errors:
                raise errors[0]

    def _compare(self, part: Tracker, folder: Path, expected: Tracked, given: str) -> None:
        with trying(part, given, "Correct tracked, or what the tracker writes"):
            tracked = self.tracked(folder)
        for name, numbers in expected.items() if tracked is not None else ():
            shown = tracked.get(name, ()) if tracked else ()
            well = [step for step, _ in shown] == [step for step, _ in numbers] and np.allclose(
                [number for _, number in shown], [number for _, number in numbers], rtol=1e-6
            )
            require(well, part, given, f"shows {list(shown)} as {name}", f"Each step is shown once: {list(numbers)}")


def _tell(tracker: OpenTracker, told: Tracked, pictures: Sequence[int] = (1, 3)) -> None:
    """Tells numbers step by step, and with the last step pictures of so many channels each."""
    for step in sorted({step for numbers in told.values() for step, _ in numbers}):
        tracker.log(step, {name: dict(numbers)[step] for name, numbers in told.items()})
        last = step
    for channels in pictures:
        tracker.image(last, f"previews/{channels}", _picture(channels))


def _picture(channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.arange(6 * 9 * channels, dtype=np.uint8).reshape(6, 9, channels)
