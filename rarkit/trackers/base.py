"""Trackers: parts that are told the numbers and pictures of a training while it runs.

Shape letters: H, W, C height, width, channels of a picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from rarkit.registry.component import Component
from rarkit.registry.contract import broken, checked


@final
@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run before the first numbers."""

    recipe: str
    """The recipe's name."""
    folder: Path
    """The tracker's own folder on this machine, ``runs/<recipe>/tracking/<tracker>/``, which is there. It holds what an earlier
    training of the recipe left."""
    settings: Mapping[str, Any]
    """All settings of the recipe, as plain JSON data."""
    step: int = 0
    """The first step whose numbers follow, 0 unless a training goes on. If it was interrupted later than that, it has told this and
    other steps before: each is shown once, as it was told then or as it is told now."""
    stage: str = "train"
    """Whose training it is: ``train``, or ``fit`` for a tokenizer's, which has folders of its own,
    ``runs/<recipe>/tracking/<tracker>-fit/``."""


class OpenTracker(ABC):
    """A tracker at work on one training. All its calls come from one thread, which is not the main one, one after another.

    What it raises ends the tracking, not the training: a warning says so. It prints nothing, and draws from no global generator.
    """

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Takes the numbers of a step.

        Args:
            step: the number of an optimizer step, from ``TrackedRun.step``; it never falls.
            numbers: by names such as ``train/loss``: letters, digits, ``_``, ``.``, ``-``, with slashes between groups. They may be
                infinite or NaN.
        """

    @abstractmethod
    def image(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        """Takes a picture, which is not to be modified.

        Args:
            step, name: as for ``log``.
            image_HWC: uint8 levels (H, W, C), of one channel (grey) or three.
        """

    @abstractmethod
    def close(self) -> None:
        """Writes what is left; the last call, however the training ended."""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Tracker(Component):
    """Shows the numbers and pictures of a training while it runs, on this machine unless it says otherwise.

    It decides nothing in the result: no fingerprint has it. Light until ``open``, which imports the tracker's library.
    """

    kind: ClassVar[str] = "trackers"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, open=_checked_open, sends_to=_checked_sends_to)

    def sends_to(self) -> str | None:
        """To whom it sends what it is told, ``"wandb.ai"``, say; None, the default, if nothing leaves this machine.

        A run whose tracker sends anything is refused unless whoever runs it allows that; a recipe cannot.
        """
        return None

    @abstractmethod
    def open(self, run: TrackedRun) -> OpenTracker:
        """Begins to track a training, or goes on. Called in the thread of the later calls; what it raises ends the run."""


def _checked_open(part: Tracker, open: Callable[..., Any], run: TrackedRun) -> OpenTracker:
    opened = open(run)
    if not isinstance(opened, OpenTracker):
        raise broken(part, f"opens {type(opened).__name__}; it must open an OpenTracker")
    return opened


def _checked_sends_to(part: Tracker, sends_to: Callable[[], Any]) -> str | None:
    place = sends_to()
    if place is not None and not (isinstance(place, str) and place.strip()):
        raise broken(part, f"says that it sends to {place!r}; sends_to must return whom it sends to in words, or None")
    return place
