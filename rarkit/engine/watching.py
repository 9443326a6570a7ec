"""What looks at a training from time to time: held-out likelihood, previews.

Shape letters: M images, H, W, C height, width and channels of an image or picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.randomness import derived_seed
from rarkit.trackers.tracking import Trackers

if TYPE_CHECKING:
    from rarkit.engine.best import Best
    from rarkit.engine.task import Task
    from rarkit.engine.trainer import Trainer

Show = Callable[[int, int, NDArray[np.uint8], Sequence[str]], NDArray[np.uint8] | None]
"""Shows images of a step, given the step, the steps between such pictures, the images, (M, H, W, C) uint8, and captions, each of
equally many of them; returns the picture, (H, W, 3) uint8."""


def not_shown(step: int, every: int, images_MHWC: NDArray[np.uint8], captions: Sequence[str]) -> None:
    """For ranks other than the first, and what is no run."""


@final
@dataclass(frozen=True)
class Look:
    """A training at a step, as a watcher sees it on each rank."""

    trainer: Trainer
    arrived: Callable[[], bool]
    """Whether a signal has stopped this rank meanwhile."""
    stopping: Callable[[], bool]
    """Whether a signal has stopped any rank meanwhile: all call it together, between pieces of work, and break off if so."""
    log: Callable[[Mapping[str, Any]], None]
    """Appends a record to ``log.jsonl``; on the first rank alone."""
    trackers: Trackers
    """The recipe's trackers; on ranks other than the first, none."""
    best: Best | None = None
    """The weights with the lowest error so far, if they are kept."""


@final
@dataclass(frozen=True)
class Watcher:
    """Something that looks at a training from time to time, on all ranks, and changes nothing in it."""

    every: int
    """Steps between two looks; also at the last step if it is due, and again at the step that a training goes on from."""
    look: Callable[[Look], None]
    begin: Callable[[Look], None] = lambda look: None
    """Called once before the first step, at the step at which the training begins or goes on."""
    last: bool = False
    """Whether it looks after the last step even if that is not due."""

    def is_due(self, step: int, steps: int) -> bool:
        """Whether it looks after so many of all steps."""
        return step % self.every == 0 or (self.last and step == steps)


def previews(task: Task, every: int, show: Show, title: str) -> Watcher:
    """Shows the pictures of a task, from before the first step to after the last.

    The last shows the weights that are kept too, if those are of an earlier step: rows in which they differ from the last weights.
    """

    def drawn(trainer: Trainer, weights: AbstractContextManager[None]) -> Mapping[str, NDArray[np.uint8]]:
        with trainer.drawing(derived_seed(trainer.seed, "pictures")), trainer.evaluating() as networks, weights:
            return task.previews(networks)

    def look(look: Look) -> None:
        trainer, best = look.trainer, look.best
        pictures = drawn(trainer, nullcontext())
        if best is not None and trainer.step == trainer.settings.steps != best.step:
            kept = drawn(trainer, best.in_networks())
            others = {name: rows for name, rows in kept.items() if name not in pictures or not np.array_equal(rows, pictures[name])}
            pictures = {**pictures, **{f"{name}, kept (step {best.step:,})": rows for name, rows in others.items()}}
        if not pictures or not trainer.mesh.ranks.first:
            return
        picture_HWC = show(trainer.step, every, np.concatenate(list(pictures.values())), tuple(pictures))
        if picture_HWC is not None:
            look.trackers.image(trainer.step, f"{title}/previews", picture_HWC)

    return Watcher(every, look, lambda begun: look(begun) if begun.trainer.step == 0 else None, last=True)
