"""The trackers of one training: what the engine tells its numbers and pictures.

Shape letters: H, W, C height, width, channels of a picture.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import CapabilityError, StoreError, sentences
from rarkit.files.own_folder import OwnFolder
from rarkit.trackers.base import TrackedRun, Tracker
from rarkit.trackers.consent import refusal
from rarkit.trackers.feed import CLOSING_SECONDS, HURRIED_SECONDS, Feed

FOLDER = "tracking"
"""The folder of all trackers, in that of the run."""


@final
class Trackers:
    """Tells all trackers of a training. Never waits for one, and raises nothing of theirs: a warning says what became of them."""

    def __init__(self, feeds: Sequence[Feed] = ()) -> None:
        self._feeds = feeds

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tells the numbers of a step; step (from that of the run) and names as for ``OpenTracker.log``."""
        if self._feeds:
            own = {name: float(number) for name, number in numbers.items()}
            for feed in self._feeds:
                # A dictionary for each, since a part may change what it is given.
                feed.put(lambda tracker: tracker.log(step, dict(own)))

    def image(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        """Shows a picture: uint8 levels (H, W, C) of one channel or three. It is copied."""
        assert image_HWC.dtype == np.uint8 and image_HWC.ndim == 3 and image_HWC.shape[2] in (1, 3), image_HWC.shape  # noqa: PT018
        for feed in self._feeds:
            own_HWC = image_HWC.copy()
            feed.put(lambda tracker, own_HWC=own_HWC: tracker.image(step, name, own_HWC), own_HWC.nbytes)  # type: ignore[misc]


@contextmanager
def open_trackers(parts: Sequence[Tracker], run: TrackedRun) -> Iterator[Trackers]:
    """Opens trackers for a training, and closes them at its end.

    Args:
        parts: the recipe's trackers.
        run: of the training; its folder is ``runs/<recipe>/``, below which each tracker gets its own.

    Raises:
        CapabilityError: a tracker sends data away, and nobody allowed it.
        PluginError: a tracker cannot be opened.
        StoreError: its folder cannot be made.
    """
    feeds: list[Feed] = []
    seconds = HURRIED_SECONDS
    try:
        for part in parts:
            if (reason := refusal(part)) is not None:
                raise CapabilityError(sentences(f"[[trackers]] {part.name!r}: {reason}"))
            feed = Feed(part, dataclasses.replace(run, folder=_own_folder(run.folder, part, run.stage)))
            feed.open()
            feeds.append(feed)
        yield Trackers(feeds)
        seconds = CLOSING_SECONDS
    finally:
        for feed in feeds:
            feed.close(seconds)


@contextmanager
def untracked(step: int) -> Iterator[Trackers]:
    """No trackers: for ranks other than the first, and what is no run."""
    yield Trackers()


def _own_folder(run: Path, part: Tracker, stage: str) -> Path:
    root = Path(os.path.abspath(run))
    # A part may be called "..".
    name = f"_{part.name}" if part.name.startswith(".") else part.name
    folder = root / FOLDER / (name if stage == "train" else f"{name}-{stage}")
    try:
        OwnFolder(str(root)).makedirs(str(folder), exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {folder} of tracker {part.name!r}: {error}. Correct that, or leave it out."
        ) from error
    return folder
