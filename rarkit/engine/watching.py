"""What looks at a training from time to time: held-out likelihood, previews."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from rarkit.trackers.tracking import Trackers

if TYPE_CHECKING:
    from rarkit.engine.trainer import Trainer


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


@final
@dataclass(frozen=True)
class Watcher:
    """Something that looks at a training from time to time, on all ranks, and changes nothing in it."""

    every: int
    """Steps between two looks; also at the last step if it is due, and again at the step that a training goes on from."""
    look: Callable[[Look], None]
    begin: Callable[[Look], None] = lambda look: None
    """Called once before the first step, at the step at which the training begins or goes on."""
