"""The base of stages. A stage is a node of the pipeline: it reads a view and upstream outputs, and writes one cached output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.engine.learning import Learning
from rarkit.engine.watching import Show, not_shown
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import Settings
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks
from rarkit.trackers.tracking import Trackers, untracked

STATE = "state_"
"""Prefix of the arrays that hold a part's learned state."""
LOG = "log_"
"""Prefix of the arrays that hold the log of a training."""


class View(Settings, ABC):
    """Everything a stage reads of an experiment. ``run`` gets nothing else, so the fingerprint covers all that it reads.

    Fields at their default and fields marked ``NotInFingerprint`` stay out of the fingerprint. Entries of a nested view are merged
    into those of the outer one, so that a plan names settings as recipes do.
    """

    @final
    def flat_identity(self) -> dict[str, Any]:
        """``identity``, in which each nested view is replaced by its entries."""
        identity = self.identity()
        for name in type(self).model_fields:
            inner = getattr(self, name)
            if isinstance(inner, View) and name in identity:
                del identity[name]
                entries = inner.flat_identity()
                assert not identity.keys() & entries.keys(), f"{type(self).__name__} has fields of its nested {name}"
                identity |= entries
        return identity


V = TypeVar("V", bound=View)


@final
@dataclass(frozen=True)
class Work(Generic[V]):
    """The arguments of ``Stage.run``."""

    view: V
    device: str
    """A torch device string."""
    inputs: Mapping[str, StageOutput]
    """The complete outputs of the upstream stages, and of those that it looks at, by name."""
    output: StageOutput
    """The stage's own output, locked and begun, with the arrays and files left by an interrupted run."""
    reporter: Reporter
    log: Callable[[Mapping[str, Any]], None]
    """Appends a record to ``log.jsonl``."""
    ranks: Ranks = ALONE
    """The processes that share the work; the first holds the lock of the output."""
    trackers: Callable[[int], AbstractContextManager[Trackers]] = untracked
    """Opens the recipe's trackers for a training that goes on at this step; on ranks other than the first, none."""
    show: Show = not_shown
    """Shows images of a step in the folder of the run."""

    def learning(self, ranks: Ranks | None = None) -> Learning:
        """The engine for what learns in this stage, on all its processes or on those given; checkpoints are kept in the output."""
        return Learning(device=self.device, ranks=ranks or self.ranks, reporter=self.reporter, log=self.log, output=self.output)

    def remove_checkpoints(self, keep: Sequence[str] = ()) -> None:
        """Removes the files of a finished output that do not belong to it."""
        for name in self.output.file_names():
            if name not in keep:
                self.output.remove_file(name)


class Stage(ABC, Generic[V]):
    """A node of the pipeline. Subclasses are final, and import torch and zarr only inside ``run`` to keep planning fast."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Increased when the same view gives a different result than before."""
    is_shared: ClassVar[bool] = False
    """Whether every rank calls ``run`` and does its share; otherwise the first does everything while the others wait."""

    @abstractmethod
    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        """Names of the stages whose outputs it reads; None if the recipe does not have this stage."""

    def looks_at(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of stages before it whose outputs it also reads, for what is shown meanwhile. They decide nothing in its output."""
        return ()

    @final
    def inputs(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the stages whose outputs ``run`` gets."""
        upstream = self.upstream(recipe) or ()
        return (*upstream, *(name for name in self.looks_at(recipe) if name not in upstream))

    @abstractmethod
    def view(self, experiment: Experiment) -> V | None:
        """What the stage reads of an experiment; None if the recipe does not have this stage.

        Raises:
            DatasetError, WeightsError: data or weights that the stage reads are missing.
        """

    def reads(self, view: V) -> tuple[StageOutput, ...]:
        """The outputs that ``run`` reads besides those upstream; while it runs, they are not removed from the store."""
        return ()

    @abstractmethod
    def run(self, work: Work[V]) -> None:
        """Writes the output and finishes it. After an interruption, another call resumes and gives bit-identical results."""

    def left_off(self, view: V, output: StageOutput) -> str | None:
        """What ``run`` goes on after with an unfinished output (``step 4 of 6``, say); None if it starts again."""
        return None

    @final
    def identity(self, view: V) -> dict[str, Any]:
        """Everything that determines the output, apart from upstream outputs, as plain JSON data."""
        return {"version": self.version, **view.flat_identity()}


STARTS_AGAIN = "an earlier run left nothing whole to go on from"
"""Why a stage starts again with an unfinished output."""


def rows_left_off(output: StageOutput, *names: str) -> str | None:
    """``left_off`` of stages that write blocks of images: the number of images whose block is whole in all these arrays."""
    if not output.begun().arrays.keys() >= set(names):
        return None
    missing, layout = set(output.missing_blocks(names)), output.layout(names[0])
    rows = (layout.block_rows(block) for block in range(layout.blocks) if block not in missing)
    done = sum(stop - start for start, stop in rows)
    return f"{done:,} of {layout.shape[0]:,} images" if done else None


def write_state(output: StageOutput, state: Mapping[str, NDArray[Any]]) -> None:
    """Stores a part's learned state."""
    for name, values in state.items():
        output.write_array(f"{STATE}{name}", np.atleast_1d(values))


def read_state(output: StageOutput | None) -> dict[str, NDArray[Any]]:
    """A part's learned state; empty if there is no output to read it from."""
    if output is None:
        return {}
    names = [name for name in output.begun().arrays if name.startswith(STATE)]
    return {name.removeprefix(STATE): output.read_array(name) for name in names}


def write_log(output: StageOutput, log: Mapping[str, NDArray[Any]]) -> None:
    """Stores the log of a training, by column."""
    for name, values in log.items():
        output.write_array(LOG + name, values)


def read_log(output: StageOutput) -> dict[str, NDArray[Any]]:
    """The log of a training, by column; empty if the output has none."""
    names = [name for name in output.begun().arrays if name.startswith(LOG)]
    return {name.removeprefix(LOG): output.read_array(name) for name in names}
