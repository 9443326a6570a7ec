"""Training from start to end: with progress, log, checkpoints, and signals that end it in good order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from numpy.typing import NDArray

from rarkit.engine.degrees import Degrees, degrees, resumed_micro
from rarkit.engine.facts import Facts, facts_of
from rarkit.engine.settings import TrainSettings
from rarkit.engine.watching import Watcher
from rarkit.runtime.kept_memory import kept_memory
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks
from rarkit.runtime.signals import HeldSignals
from rarkit.trackers.tracking import Trackers

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.cache.output import StageOutput
    from rarkit.engine.checkpoints import Checkpoints
    from rarkit.engine.task import Task


@final
@dataclass(frozen=True)
class Trained:
    """What a training ends with."""

    weights: Mapping[str, Mapping[str, Tensor]]
    """The state dict of each network, on the CPU: its averaged weights, if the settings ask for an average; those with the lowest
    error of held-out samples, if ``best_every`` asked for that."""
    log: Mapping[str, NDArray[Any]]
    """Columns by name, a row for each step: ``step`` int64, the others float64."""
    precision: str
    """Autocast's dtype."""
    measured: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Means over the held-out samples, by name (``held_out_error`` and so on, float64), and ``step`` (int64), the steps taken by
    then: a row for each measurement. Empty if there was none."""
    best_step: int | None = None
    """The steps that the weights were trained for, where ``best_every`` chose them."""


@final
@dataclass(frozen=True)
class Learning:
    """The engine, as it is handed to a part that learns. By itself: one process on the CPU, silent, without checkpoints."""

    device: str = "cpu"
    ranks: Ranks = ALONE
    reporter: Reporter = field(default_factory=lambda: Reporter(quiet=True))
    log: Callable[[Mapping[str, Any]], None] = lambda record: None
    """Receives the log entry of each step."""
    output: StageOutput | None = None
    """Where checkpoints are kept."""

    def train(
        self,
        task: Task,
        settings: TrainSettings,
        *,
        seed: int,
        title: str = "train",
        micro: int | None = None,
        watchers: Sequence[Watcher] = (),
        held: HeldSignals | None = None,
        on_all: bool = True,
        tracked: Callable[[int], Trackers] | None = None,
        best_every: int | None = None,
    ) -> Trained:
        """Trains to the last step, from the last checkpoint if there is one.

        Args:
            task: what is trained, in place; every rank has the same.
            settings: the recipe's ``[train]``, or a part's own.
            seed: decides what modules draw from torch's generator.
            title: of the progress.
            micro: the most samples of a pass where the settings do not say: what the memory holds; None means a process's whole
                share.
            watchers: what looks on.
            held: holds signals back beyond the training; None lets them go at its end.
            on_all: whether every rank gets the weights; otherwise only the first.
            tracked: opens trackers for a training that goes on at a step, and closes them later; None for none.
            best_every: steps between measurements of the task's held-out samples, which are also made before the first step and
                after the last; what is returned are the weights with the lowest error. They are kept on the device meanwhile, and
                in checkpoints. None measures nothing and returns the last weights. It decides the result, so it must follow from
                the part's settings.

        Raises:
            NotFiniteError: a loss is no longer finite; the message names step, samples and the last good checkpoint.
            CapabilityError: the memory does not suffice; the message says what to lower.
            RarkitError: the batch cannot be divided; a checkpoint is another training's.
            RankError: another rank has failed.
        """
        from rarkit.engine.best import Best
        from rarkit.engine.course import Course
        from rarkit.engine.memory import saying_what_to_lower
        from rarkit.engine.mesh import joined
        from rarkit.engine.trainer import Trainer, precision_of

        with joined(self.ranks, self.device), kept_memory(self.device), self._checkpoints(settings) as checkpoints:
            step = None if checkpoints is None else checkpoints.latest()
            facts = None if checkpoints is None or step is None else facts_of(checkpoints.facts(step), step, settings, self.output)
            precision = precision_of(settings, self.device) if facts is None else facts.precision
            divided = self._degrees(settings, micro, facts)
            with saying_what_to_lower(task, settings, divided, precision, self.device):
                trainer = Trainer(
                    task, settings, seed=seed, device=self.device, degrees=divided, precision=precision, ranks=self.ranks
                )
                best = None if best_every is None else Best(trainer, best_every)
                about = self.ranks, self.reporter, self.log, watchers, best
                course = Course(trainer, checkpoints, title, *about)
                if step is not None and facts is not None:
                    course.resume(step, facts)
                if tracked is not None:
                    course.trackers = tracked(trainer.step)
                self.reporter.say(f"{title}: {course.described}")
                with nullcontext(held) if held is not None else HeldSignals() as holding:
                    assert holding is not None
                    course.run(holding)
                    weights, log = course.weights(on_all=on_all), course.columns()
                    if best is None:
                        return Trained(weights, log, trainer.precision)
                    self.reporter.say(f"{title}: the weights after {best.step:,} of {trainer.step:,} steps are the best")
                    return Trained(weights, log, trainer.precision, best.columns(), best.step)

    def _degrees(self, settings: TrainSettings, micro: int | None, facts: Facts | None) -> Degrees:
        size = self.ranks.size
        divided = degrees(settings, size, micro)
        if facts is None:
            return divided
        return degrees(settings, size, resumed_micro(divided.share, facts.micro_batch_size, facts.processes, size, micro))

    def _checkpoints(self, settings: TrainSettings) -> AbstractContextManager[Checkpoints | None]:
        if self.output is None:
            return nullcontext()
        from rarkit.engine.checkpoints import Checkpoints

        return Checkpoints(self.output, self.ranks, keep_last=settings.keep_checkpoints, keep_every=settings.keep_every)
