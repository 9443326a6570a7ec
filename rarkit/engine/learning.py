"""Training from start to end: with progress, log, checkpoints, and signals that end it in good order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from rarkit.engine.checkpoint_seal import damaged_steps
from rarkit.engine.degrees import Degrees, degrees, resumed_micro
from rarkit.engine.facts import Facts, facts_of
from rarkit.engine.planned import PlanEnds, Planned
from rarkit.engine.settings import TrainSettings
from rarkit.engine.trained import VALUE, Note, Trained
from rarkit.engine.watching import Show, Watcher, not_shown, previews
from rarkit.errors import PluginError, RarkitWarning
from rarkit.runtime.kept_memory import kept_memory
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks
from rarkit.runtime.signals import HeldSignals
from rarkit.trackers.tracking import Trackers, untracked

if TYPE_CHECKING:
    from rarkit.cache.output import StageOutput
    from rarkit.engine.checkpoints import Checkpoints
    from rarkit.engine.course import Course
    from rarkit.engine.task import Task


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
    show: Show = not_shown
    """Shows pictures of a training."""
    trackers: Callable[[int], AbstractContextManager[Trackers]] = untracked
    """Opens trackers for a training that goes on at this step."""
    finished: list[Trained] = field(default_factory=list)
    """What the trainings ended with."""
    notes: list[Note] = field(default_factory=list)
    """What was noted."""
    part: str | None = None
    """The table of the recipe whose part learns, for messages; None if it is ``[train]``."""
    only_plans: bool = False
    """Whether nothing is trained, because only what it would take is asked for (``rarkit plan``), with images that are none:
    ``train`` then ends ``learn``. A part may leave out what comes before and takes long, if it decides only values."""

    def note(self, name: str, value: float, sentence: str, *, beside: str | None = None) -> None:
        """Notes a number for the report of the run: what a simpler part reaches on the same data, say.

        Args:
            name: of a few words.
            value: a finite number; on every rank the same, or on the first alone.
            sentence: what it is, with its unit, and ``{value}`` in the place of the number.
            beside: the column of the log, or of what is measured (``"held_out_psnr"``), in whose chart it is drawn as a line.

        Raises:
            PluginError: the sentence has no place for the number.
        """
        if VALUE not in sentence:
            raise PluginError(f"the sentence of note {name!r} has no {VALUE}, for the number: {sentence!r}")
        self.notes.append(Note(name=name, value=float(value), sentence=sentence, beside=beside))

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
        preview_every: int | None = None,
    ) -> Trained:
        """Trains to the last step, from the last checkpoint if there is one.

        Args:
            task: what is trained, in place; every rank has the same.
            settings: the recipe's ``[train]``, or a part's own.
            seed: decides what modules draw from torch's generator.
            title: of the progress.
            micro: the most samples of a pass where the settings do not say; None means a process's whole share.
            watchers: what looks on.
            held: holds signals back beyond the training; None lets them go at its end.
            on_all: whether every rank gets the weights; otherwise only the first.
            tracked: opens trackers for a training that goes on at a step; None for those of ``trackers``, until its end.
            best_every: steps between measurements of the task's held-out samples, besides those before the first step and after
                the last. The weights with the lowest error are returned; until then, they are kept once more on the device. None:
                the last weights. It decides the result, so it must follow from the part's settings.
            preview_every: steps between pictures, besides those before the first and after the last; they decide nothing.

        Raises:
            NotFiniteError: a loss is no longer finite; the message names step, samples and the last good checkpoint.
            CapabilityError: the memory does not suffice; the message says what to lower.
            RarkitError: the batch cannot be divided; a checkpoint is another training's.
            RankError: another rank has failed.
        """
        if self.only_plans:
            raise PlanEnds(Planned(task, settings, micro, keeps_best=best_every is not None))
        from rarkit.engine.best import Best
        from rarkit.engine.course import Course
        from rarkit.engine.memory import saying_what_to_lower
        from rarkit.engine.mesh import joined
        from rarkit.engine.trainer import Trainer, precision_of

        with joined(self.ranks, self.device), kept_memory(self.device), self._checkpoints(settings) as checkpoints:
            step, facts = self._begun(checkpoints, settings, title)
            precision = precision_of(settings, self.device) if facts is None else facts.precision
            divided = self._degrees(settings, micro, facts)
            with saying_what_to_lower(task, settings, divided, precision, self.device, self.part):
                how: dict[str, Any] = {"degrees": divided, "precision": precision, "ranks": self.ranks}
                trainer = Trainer(task, settings, seed=seed, device=self.device, **how)
                best = None if best_every is None else Best(trainer, best_every)
                looks = watchers if preview_every is None else (*watchers, previews(task, preview_every, self.show, title))
                course = Course(trainer, checkpoints, title, self.ranks, self.reporter, self.log, looks, best)
                if facts is not None:
                    course.resume(step, facts)
                opened = self.trackers(trainer.step) if tracked is None else nullcontext(tracked(trainer.step))
                return self._through(course, opened, held, on_all=on_all)

    def _begun(self, checkpoints: Checkpoints | None, settings: TrainSettings, title: str) -> tuple[int, Facts | None]:
        """The step of the last checkpoint that is whole, and its facts; 0 if there is none."""
        if checkpoints is None:
            return 0, None
        step = checkpoints.latest()
        then = "and no other is whole: starts again" if step is None else "and passed over"
        for each in damaged_steps(self.output, step) if self.output is not None and self.ranks.first else ():
            warnings.warn(RarkitWarning(f"{title}: the checkpoint of step {each:,} is damaged, {then}"), stacklevel=2)
        if step is None:
            return 0, None
        return step, facts_of(checkpoints.facts(step), step, settings, self.output)

    def _through(
        self, course: Course, opened: AbstractContextManager[Trackers], held: HeldSignals | None, *, on_all: bool
    ) -> Trained:
        with opened as course.trackers, HeldSignals() if held is None else nullcontext(held) as holding:
            self.reporter.say(f"{course.title}: {course.described}")
            course.run(holding)
            self.finished.append(course.trained(on_all=on_all))
            return self.finished[-1]

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
