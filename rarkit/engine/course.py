"""A training under way: steps, checkpoints, looks, and the end, in good order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.engine.facts import Facts
from rarkit.engine.speed import Speed, progress_line
from rarkit.engine.trained import Trained
from rarkit.engine.watching import Look, Watcher
from rarkit.errors import NotFiniteError, RankError, sentences
from rarkit.runtime.machine import peak_rate
from rarkit.runtime.progress import Advance, Reporter
from rarkit.runtime.ranks import Ranks
from rarkit.runtime.signals import HeldSignals
from rarkit.trackers.tracking import Trackers

if TYPE_CHECKING:
    from rarkit.engine.best import Best
    from rarkit.engine.checkpoints import Checkpoints
    from rarkit.engine.trainer import Record, Trainer


@final
class Course:
    """A training under way, on one of its ranks."""

    def __init__(
        self,
        trainer: Trainer,
        checkpoints: Checkpoints | None,
        title: str,
        ranks: Ranks,
        reporter: Reporter,
        log: Callable[[Mapping[str, Any]], None],
        watchers: Sequence[Watcher] = (),
        best: Best | None = None,
    ) -> None:
        """``trainer`` at step 0; the rest is as for ``Learning.train``."""
        self.best = best
        self.trainer, self.checkpoints, self.title, self.watchers = trainer, checkpoints, title, watchers
        self.ranks, self.reporter, self.log = ranks, reporter, log
        self.settings = trainer.settings
        self.records: list[Record] = []
        self.trackers = Trackers()
        self._saved, self._since = 0, time.monotonic()
        self._failure: RankError | None = None
        peak = peak_rate(trainer.device, trainer.precision)
        batch, size = self.settings.batch_size, trainer.degrees.size
        self._speed = Speed(batch, trainer.task.flops(batch), None if peak is None else size * peak)

    @property
    def described(self) -> str:
        """How it is trained, in words."""
        degrees, precision, device = self.trainer.degrees, self.trainer.precision, self.trainer.device
        words = [f"in {precision} on {device}"]
        if degrees.size > 1:
            several = "copy" if degrees.replicate == 1 else "copies"
            copies = f", {degrees.replicate} {several} of the weights in {degrees.shard} shards" if degrees.shard > 1 else ""
            words.append(f"{degrees.size} processes ({self.settings.data_parallel}{copies})")
        if degrees.accumulation > 1:
            words.append(f"{degrees.accumulation} passes of {degrees.micro} samples a step")
        return ", ".join(words)

    def resume(self, step: int, facts: Facts) -> None:
        """Goes on from the checkpoint of a step."""
        import torch

        assert self.checkpoints is not None
        columns = {f"log/{name}": torch.zeros(step, dtype=torch.float64) for name in facts.columns}
        measured = {} if self.best is None else self.best.empty_state(facts.measured, facts.measurements)
        self.checkpoints.load(step, self.trainer.tensors() | columns | measured)
        rows = zip(*(columns[f"log/{name}"].tolist() for name in facts.columns), strict=True)
        for row in rows:
            record = dict(zip(facts.columns, row, strict=True))
            self._note(record | {"step": int(record["step"])})
        if self.best is not None:
            self.best.take(measured, facts.measured)
            for entry in self.best.entries:
                self._tell(entry)
        self.trainer.step = self._saved = step
        self.reporter.say(f"{self.title}: resuming from the checkpoint at step {step:,}")

    def run(self, held: HeldSignals) -> None:
        """Trains to the last step."""
        trainer, settings = self.trainer, self.settings
        for watcher in self.watchers:
            watcher.begin(self._look(held))
        with self.reporter.task(self.title, settings.steps, "steps", trainer.step) as advance:
            self._measure()
            # What came while it was prepared, and the looks that a stop broke off.
            if trainer.step < settings.steps and (self._stopping(held) or (trainer.step > 0 and self._watch(held))):
                self._stop(held)
            while trainer.step < settings.steps:
                trainer.advance(flags=(self._is_to_stop(held), self._is_late()))
                stopped, due = self._take(advance)
                due = due or self._is_due(trainer.step)
                looks = any(watcher.is_due(trainer.step, settings.steps) for watcher in self.watchers)
                measures = self.best is not None and self.best.is_due(trainer.step)
                if looks or measures or (trainer.step < settings.steps and (due or stopped)):
                    # What is saved, or looked at, has finite numbers.
                    stopped = self._take(advance, all_of_them=True)[0] or stopped
                    self._measure()
                    stopped = stopped or self._watch(held)
                if trainer.step < settings.steps and (due or stopped):
                    self._save()
                if trainer.step < settings.steps and stopped:
                    self._stop(held)
            self._take(advance, all_of_them=True)
            self.trainer.check_alike()

    def trained(self, *, on_all: bool) -> Trained:
        """What the training gives: the best weights, if they are kept, else the last; whole on all ranks, or on the first alone."""
        trainer, best = self.trainer, self.best
        kept = trainer.kept if best is None else best.weights
        weights = {name: trainer.gathered(kept(name), on_all=on_all) for name in trainer.networks}
        if best is None:
            return Trained(weights, self.columns(), trainer.precision)
        self.reporter.say(f"{self.title}: the weights after {best.step:,} of {trainer.step:,} steps are the best")
        return Trained(weights, self.columns(), trainer.precision, best.columns(), best.step)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The log by column."""
        names = self.records[0] if self.records else ()
        return {
            name: np.array([record[name] for record in self.records], dtype=np.int64 if name == "step" else np.float64)
            for name in names
        }

    def _is_due(self, step: int) -> bool:
        every = self.settings.keep_every
        return step % self.settings.checkpoint_every == 0 or (every is not None and step % every == 0)

    def _is_late(self) -> bool:
        """Whether this rank wants a checkpoint: time is up, or the last was not saved, which the next raises on all ranks."""
        failed = self.checkpoints is not None and self.checkpoints.failed
        return failed or time.monotonic() - self._since >= 60 * self.settings.checkpoint_minutes

    # Numbers that come back

    def _take(self, advance: Advance, *, all_of_them: bool = False) -> tuple[bool, bool]:
        stopped = due = False
        for record, (stop, save) in self._records(all_of_them):
            self._note(record)
            self._speed.stepped()
            advance(1, progress_line(record, self._speed))
            stopped, due = stopped or stop, due or save
        return stopped, due

    def _records(self, all_of_them: bool) -> Iterator[tuple[Record, tuple[bool, bool]]]:
        try:
            yield from self.trainer.records(all_of_them=all_of_them)
        except NotFiniteError as error:
            error.args = (sentences(*error.args, self._last_good()),)
            raise

    def _measure(self) -> None:
        """Measures held-out samples, if their turn has come."""
        if self.best is None or not self.best.is_due(self.trainer.step):
            return
        try:
            with self._speed.paused():
                entry = self.best.measure()
        except NotFiniteError as error:
            error.args = (sentences(*error.args, self._last_good()),)
            raise
        self._tell(entry)

    def _last_good(self) -> str:
        if self.checkpoints is None or self._saved == 0:
            return "There is no checkpoint of the steps before."
        return f"The last good checkpoint is that of step {self._saved:,}."

    def _note(self, record: Record) -> None:
        self.records.append(record)
        self._tell(record)

    def _tell(self, entry: Mapping[str, float]) -> None:
        if self.ranks.first:
            self.log(entry)
            numbers = {f"{self.title}/{name}": number for name, number in entry.items() if name != "step"}
            self.trackers.log(int(entry["step"]), numbers)

    # Looks

    def _look(self, held: HeldSignals) -> Look:
        arrived, stopping = (lambda: held.arrived is not None), (lambda: self._stopping(held))
        return Look(self.trainer, arrived, stopping, self.log, self.trackers, self.best)

    def _watch(self, held: HeldSignals) -> bool:
        """Has those look whose turn it is; returns whether a signal broke that off, on any rank."""
        due = [watcher for watcher in self.watchers if watcher.is_due(self.trainer.step, self.settings.steps)]
        with self._speed.paused():
            for watcher in due:
                watcher.look(self._look(held))
                if self._stopping(held):
                    return True
        return False

    def _is_to_stop(self, held: HeldSignals, *, now: bool = False) -> bool:
        """Whether this rank got a signal, or lost torchrun, without which nobody stops or starts the ranks any more."""
        try:
            self.ranks.check(now=now)
        except RankError as failure:
            self._failure = failure
        return held.arrived is not None or self._failure is not None

    def _stopping(self, held: HeldSignals) -> bool:
        import torch

        stopping = self._is_to_stop(held)
        if self.ranks.size == 1:
            return stopping
        return bool(self.trainer.mesh.total(torch.full((1,), float(stopping), device=self.trainer.device)).item() > 0)

    # Checkpoints, and the end

    def _save(self) -> None:
        self._since = time.monotonic()
        if self.checkpoints is None or self._saved == self.trainer.step:
            return
        import torch

        self.trainer.check_alike()

        columns = self.columns()
        log = {f"log/{name}": torch.from_numpy(values.astype(np.float64)) for name, values in columns.items()}
        facts = self.trainer.facts.model_copy(update={"columns": tuple(columns)})
        if self.best is not None:
            log |= self.best.state()
            facts = facts.model_copy(update={"measured": tuple(self.best.columns()), "measurements": len(self.best.entries)})
        with self._speed.paused():
            self.checkpoints.save(self.trainer.step, self.trainer.tensors() | log, facts.model_dump(mode="json"))
        self._saved, self._since = self.trainer.step, time.monotonic()

    def _stop(self, held: HeldSignals) -> None:
        """Ends the training in good order, on all ranks: on those that got a signal, with it."""
        stands = f"Training stands at step {self.trainer.step:,} of {self.settings.steps:,}"
        if self.checkpoints is not None and self._saved == self.trainer.step > 0:
            self.checkpoints.wait()
            stands += ", in a checkpoint: the same command goes on from there."
        if held.arrived is not None:
            held.deliver(stands)
        # Another rank may have seen first that torchrun is gone.
        self._is_to_stop(held, now=True)
        if self._failure is not None:
            raise RankError(sentences(self._failure, stands), told=self._failure.told)
        raise RankError(f"another process of this run was stopped. {stands}", told=not self.ranks.first)
