"""Training from start to end: with progress, log, checkpoints, and signals that end it in good order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.engine.facts import Facts, facts_of
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RankError
from rarkit.runtime.progress import Advance, Reporter
from rarkit.runtime.ranks import ALONE, Ranks
from rarkit.runtime.signals import HeldSignals
from rarkit.trackers.tracking import Trackers

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.cache.output import StageOutput
    from rarkit.engine.checkpoints import Checkpoints
    from rarkit.engine.task import Task
    from rarkit.engine.trainer import Record, Trainer


@final
@dataclass(frozen=True)
class Trained:
    """What a training ends with."""

    weights: Mapping[str, Mapping[str, Tensor]]
    """The state dict of each network, on the CPU: its averaged weights, if the settings ask for an average."""
    log: Mapping[str, NDArray[Any]]
    """Columns by name, a row for each step: ``step`` int64, the others float64."""
    precision: str
    """Autocast's dtype."""


@final
@dataclass(frozen=True)
class Watcher:
    """Something that looks at a training from time to time, on all ranks, and changes nothing in it."""

    every: int
    """Steps between two looks."""
    look: Callable[[Trainer], None]


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
    ) -> Trained:
        """Trains to the last step, from the last checkpoint if there is one.

        Args:
            task: what is trained, in place; every rank has the same.
            settings: the recipe's ``[train]``, or a part's own.
            seed: decides what modules draw from torch's generator.
            title: of the progress.
            micro: samples of a pass where the settings do not say; None means a process's whole share.
            watchers: what looks on.
            held: holds signals back beyond the training; None lets them go at its end.
            on_all: whether every rank gets the weights; otherwise only the first.
            tracked: opens trackers for a training that goes on at a step, and closes them later; None for none.

        Raises:
            RarkitError: a loss is no longer finite; the batch cannot be divided; a checkpoint is another training's.
            RankError: another rank has failed.
        """
        from rarkit.engine.degrees import degrees
        from rarkit.engine.mesh import joined
        from rarkit.engine.trainer import Trainer

        with joined(self.ranks, self.device), self._checkpoints() as checkpoints:
            step = None if checkpoints is None else checkpoints.latest()
            facts = None if checkpoints is None or step is None else facts_of(checkpoints.facts(step), step, settings, self.output)
            trainer = Trainer(
                task,
                settings,
                seed=seed,
                device=self.device,
                degrees=degrees(settings, self.ranks.size, micro if facts is None else facts.micro_batch_size),
                precision=None if facts is None else facts.precision,
                ranks=self.ranks,
            )
            course = _Course(self, trainer, checkpoints, title, watchers)
            if step is not None and facts is not None:
                course.resume(step, facts)
            if tracked is not None:
                course.trackers = tracked(trainer.step)
            self.reporter.say(f"{title}: {course.described}")
            with nullcontext(held) if held is not None else HeldSignals() as holding:
                assert holding is not None
                course.run(holding)
                return Trained(
                    {name: trainer.weights(name, on_all=on_all) for name in task.networks}, course.columns(), trainer.precision
                )

    def _checkpoints(self) -> AbstractContextManager[Checkpoints | None]:
        if self.output is None:
            return nullcontext()
        from rarkit.engine.checkpoints import Checkpoints

        return Checkpoints(self.output, self.ranks)


@final
class _Course:
    """A training under way."""

    def __init__(
        self, learning: Learning, trainer: Trainer, checkpoints: Checkpoints | None, title: str, watchers: Sequence[Watcher]
    ) -> None:
        self.learning, self.trainer, self.checkpoints, self.title, self.watchers = learning, trainer, checkpoints, title, watchers
        self.settings = trainer.settings
        self.records: list[Record] = []
        self.trackers = Trackers()
        self._saved, self._since = 0, time.monotonic()
        self._failure: RankError | None = None

    @property
    def described(self) -> str:
        """How it is trained, in words."""
        degrees, precision, device = self.trainer.degrees, self.trainer.precision, self.trainer.device
        words = [f"in {precision} on {device}"]
        if degrees.size > 1:
            copies = f", {degrees.replicate} copies of the weights in {degrees.shard} shards" if degrees.shard > 1 else ""
            words.append(f"{degrees.size} processes ({self.settings.data_parallel}{copies})")
        if degrees.accumulation > 1:
            words.append(f"{degrees.accumulation} passes of {degrees.micro} samples a step")
        return ", ".join(words)

    def resume(self, step: int, facts: Facts) -> None:
        """Goes on from the checkpoint of a step."""
        import torch

        assert self.checkpoints is not None
        columns = {f"log/{name}": torch.zeros(step, dtype=torch.float64) for name in facts.columns}
        self.checkpoints.load(step, self.trainer.tensors() | columns)
        rows = zip(*(columns[f"log/{name}"].tolist() for name in facts.columns), strict=True)
        for row in rows:
            record = dict(zip(facts.columns, row, strict=True))
            self._note(record | {"step": int(record["step"])})
        self.trainer.step = self._saved = step
        self.learning.reporter.say(f"{self.title}: resuming from the checkpoint at step {step:,}")

    def run(self, held: HeldSignals) -> None:
        """Trains to the last step."""
        trainer, settings = self.trainer, self.settings
        with self.learning.reporter.task(self.title, settings.steps, "steps", trainer.step) as advance:
            while trainer.step < settings.steps:
                late = time.monotonic() - self._since >= 60 * settings.checkpoint_minutes
                trainer.advance(flags=(held.arrived is not None or self._lacks_others(), late))
                stopped, due = self._take(advance)
                looks = [watcher for watcher in self.watchers if trainer.step % watcher.every == 0]
                due = due or trainer.step % settings.checkpoint_every == 0
                if trainer.step < settings.steps and (due or stopped or looks):
                    # What is saved, or looked at, has finite numbers.
                    stopped = self._take(advance, all_of_them=True)[0] or stopped
                    for watcher in looks:
                        watcher.look(trainer)
                    if due or stopped:
                        self._save()
                if stopped and trainer.step < settings.steps:
                    self._stop(held)
            self._take(advance, all_of_them=True)

    def _lacks_others(self) -> bool:
        """Whether torchrun is gone, which nobody would then start again, or another rank has failed."""
        try:
            self.learning.ranks.check()
        except RankError as failure:
            self._failure = failure
        return self._failure is not None

    def columns(self) -> dict[str, NDArray[Any]]:
        """The log by column."""
        names = self.records[0] if self.records else ()
        return {
            name: np.array([record[name] for record in self.records], dtype=np.int64 if name == "step" else np.float64)
            for name in names
        }

    def _take(self, advance: Advance, *, all_of_them: bool = False) -> tuple[bool, bool]:
        stopped = due = False
        for record, (stop, save) in self.trainer.records(all_of_them=all_of_them):
            self._note(record)
            advance(1, _shown(record))
            stopped, due = stopped or stop, due or save
        return stopped, due

    def _note(self, record: Record) -> None:
        self.records.append(record)
        if self.learning.ranks.first:
            self.learning.log(record)
            numbers = {f"{self.title}/{name}": number for name, number in record.items() if name != "step"}
            self.trackers.log(int(record["step"]), numbers)

    def _save(self) -> None:
        self._since = time.monotonic()
        if self.checkpoints is None or self._saved == self.trainer.step:
            return
        import torch

        columns = self.columns()
        log = {f"log/{name}": torch.from_numpy(values.astype(np.float64)) for name, values in columns.items()}
        facts = self.trainer.facts.model_copy(update={"columns": tuple(columns)})
        self.checkpoints.save(self.trainer.step, self.trainer.tensors() | log, facts.model_dump(mode="json"))
        self._saved, self._since = self.trainer.step, time.monotonic()

    def _stop(self, held: HeldSignals) -> None:
        """Ends the training in good order, on all ranks: on those that got a signal, with it."""
        stands = f"Training stands at step {self.trainer.step:,} of {self.settings.steps:,}"
        if self.checkpoints is not None:
            self.checkpoints.wait()
            stands += ", in a checkpoint: the same command goes on from there."
        if held.arrived is not None:
            held.deliver(stands)
        if self._failure is not None:
            raise RankError(f"{self._failure} {stands}", told=self._failure.told)
        raise RankError(f"another process of this run was stopped. {stands}", told=not self.learning.ranks.first)


def _shown(record: Record) -> str:
    ratio = f", r {record['random_ratio']:.2f}" if "random_ratio" in record else ""
    losses = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in record.items() if name.endswith("loss"))
    return losses + ratio
