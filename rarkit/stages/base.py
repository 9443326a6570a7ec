"""A stage: one node of the pipeline, with typed inputs and one cached output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.recipe.schema import Recipe
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks

STATE = "state_"
"""Before the names of arrays that hold what a part has learned."""


@final
@dataclass(frozen=True)
class Work:
    """What a stage works with."""

    recipe: Recipe
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


class Stage(ABC):
    """Subclasses are final; they import torch and zarr only inside ``run``, so that planning stays quick."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the same settings begin to give a different result."""
    is_shared: ClassVar[bool] = False
    """Whether every rank calls ``run`` to do its part; else the first does all while the others wait."""

    @abstractmethod
    def wanted(self, recipe: Recipe) -> bool:
        """Whether the recipe has this stage at all."""

    @abstractmethod
    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        """The stages whose outputs it reads."""

    @abstractmethod
    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """Everything in the recipe that decides its output, as plain JSON data; ``version`` is added by the planner."""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Writes the output and finishes it. Called again after an interruption, it goes on and ends with the same bits."""


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


def model_grid(recipe: Recipe) -> tuple[int, int]:
    """Height and width of the grid of tokens of this recipe's images.

    Raises:
        GridError: tokenizer and images, or scan order and grid, do not go together.
    """
    grid = recipe.tokenizer.grid(recipe.dataset.info())
    recipe.scan_order.check_grid(*grid)
    return grid
