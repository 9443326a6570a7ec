"""A stage: one node of the pipeline. It reads a view and the outputs upstream, and writes one cached output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import Settings
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks

STATE = "state_"
"""Before the names of arrays that hold what a part has learned."""


class View(Settings, ABC):
    """All that a stage reads of an experiment, and so all that its fingerprint covers: ``run`` is given nothing else.

    Fields at their default stay out of the fingerprint, and so do those marked ``NotInFingerprint``.
    """


V = TypeVar("V", bound=View)


@final
@dataclass(frozen=True)
class Work(Generic[V]):
    """What a stage works with."""

    view: V
    device: str
    """A torch device string."""
    inputs: Mapping[str, StageOutput]
    """Complete outputs of the stages that this one named as upstream."""
    output: StageOutput
    """Its own output, locked and begun; arrays and files of an interrupted run are still there."""
    reporter: Reporter
    log: Callable[[Mapping[str, Any]], None]
    """Takes one record for ``log.jsonl``, as it happens."""
    ranks: Ranks = ALONE
    """The processes that share the work; the first holds the lock of the output."""


class Stage(ABC, Generic[V]):
    """Subclasses are final; they import torch and zarr only inside ``run``, so that planning stays quick."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the same view begins to give a different result."""
    is_shared: ClassVar[bool] = False
    """Whether every rank calls ``run`` to do its part; else the first does all while the others wait."""

    @abstractmethod
    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        """The stages whose outputs it reads; None where the recipe has no such stage."""

    @abstractmethod
    def view(self, experiment: Experiment) -> V | None:
        """What the stage reads of an experiment; None where the recipe has no such stage.

        Raises:
            DatasetError, WeightsError: data or weights that it depends on are missing.
        """

    @abstractmethod
    def run(self, work: Work[V]) -> None:
        """Writes the output and finishes it. Called again after an interruption, it goes on and ends with the same bits."""

    @final
    def identity(self, view: V) -> dict[str, Any]:
        """What decides the output, besides the outputs upstream, as plain JSON data."""
        return {"version": self.version, **view.identity()}


def write_state(output: StageOutput, state: Mapping[str, NDArray[Any]]) -> None:
    """Keeps what a part has learned."""
    for name, values in state.items():
        output.write_array(f"{STATE}{name}", np.atleast_1d(values))


def read_state(output: StageOutput | None) -> dict[str, NDArray[Any]]:
    """What a part has learned; nothing where there is no such stage."""
    if output is None:
        return {}
    names = [name for name in output.record()["arrays"] if name.startswith(STATE)]
    return {name.removeprefix(STATE): output.read_array(name) for name in names}
