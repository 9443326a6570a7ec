"""A training that is planned and not done: what a part would train, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from rarkit.engine.settings import TrainSettings

if TYPE_CHECKING:
    from rarkit.engine.task import Task


@final
@dataclass(frozen=True)
class Planned:
    """What ``Learning.train`` was asked for."""

    task: Task
    settings: TrainSettings
    micro: int | None
    """The most samples of a pass where the settings do not say; None means a process's whole share."""
    keeps_best: bool
    """Whether the weights with the lowest error are kept beside the last."""


@final
class PlanEnds(BaseException):
    """Ends ``learn`` where the training would begin. No error, so that a part which handles those lets it pass."""

    def __init__(self, planned: Planned) -> None:
        super().__init__("this training is only planned")
        self.planned = planned
