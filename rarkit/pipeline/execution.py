"""Executes a plan, stage by stage."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.cache.output_lock import Writing
from rarkit.errors import LockLostError, StoreError, sentences
from rarkit.pipeline.cpu_threads import sensible_threads
from rarkit.pipeline.plan import Plan, PlannedStage
from rarkit.recipe.text import to_toml
from rarkit.runtime.machine import machine_description
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks
from rarkit.runtime.signals import KEPT, Stopped
from rarkit.stages.base import STARTS_AGAIN, Work
from rarkit.trackers.tracking import Trackers

OpensTrackers = Callable[[str, int], AbstractContextManager[Trackers]]
Shows = Callable[[str, int, int, NDArray[np.uint8], Sequence[str]], NDArray[np.uint8] | None]
MEANWHILE = "another run has made it meanwhile"
FORCED = "But leave out --from and --force (start and force in Python), which would begin again."
"""The end of advice to run again, if stages were forced."""


@final
@dataclass(frozen=True)
class StageResult:
    """What a run did for one stage."""

    name: str
    fingerprint: str
    action: Literal["ran", "cached"]
    seconds: float | None
    """How long the output took to make, if another run made it too; None if an older rarkit did, and did not record it."""
    reason: str


def execute(
    plan: Plan,
    device: str,
    reporter: Reporter,
    log: Callable[[str, Mapping[str, Any]], None],
    ranks: Ranks = ALONE,
    *,
    wait: bool = True,
    trackers: OpensTrackers | None = None,
    show: Shows | None = None,
) -> list[StageResult]:
    """Runs the stages that the plan says to run, and locks each output while it is written.

    What another process finishes meanwhile is used, and counts as cached.

    Args:
        plan: a plan that ``check_ready`` has accepted.
        device: a torch device string.
        reporter: shows progress.
        log: called with (stage, record) for each log record.
        ranks: the processes that execute the same plan, each in its own call.
        wait: wait for what another process is making; otherwise that is an error.
        trackers: opens the trackers of a stage's training that goes on at a step; None for none.
        show: shows images of a step of a stage's training; None shows none.

    Returns:
        One result per stage that ran or was cached, in order.
    """
    results = []
    with _advising(plan):
        for planned in plan.stages:
            if planned.action == "cached":
                seconds_then = planned.output.begun().seconds
                results.append(StageResult(planned.name, planned.output.fingerprint, "cached", seconds_then, planned.reason))
            if planned.action != "run":
                continue
            if planned.reason == STARTS_AGAIN:
                reporter.say(f"{planned.name}: starts again: {STARTS_AGAIN}")
            started = time.monotonic()
            with sensible_threads(plan.experiment, device):
                ran = _run_stage(plan, planned, device, reporter, log, ranks, wait, trackers, show)
            seconds = time.monotonic() - started
            if ran:
                reporter.say(f"{planned.name}: done in {seconds:,.1f} s")
                results.append(StageResult(planned.name, planned.output.fingerprint, "ran", seconds, planned.reason))
            else:
                reporter.say(f"{planned.name}: {MEANWHILE}")
                seconds_then = planned.output.begun().seconds
                results.append(StageResult(planned.name, planned.output.fingerprint, "cached", seconds_then, MEANWHILE))
    return results


@contextmanager
def _advising(plan: Plan) -> Iterator[None]:
    """Around forced stages: whoever runs the same command again, as it is advised after an interruption, would begin again."""
    try:
        yield
    except (KeyboardInterrupt, Stopped, StoreError) as error:
        if any(stage.forced for stage in plan.stages):
            if type(error) in (StoreError, LockLostError):
                error.args = (*error.args[:-1], sentences(error.args[-1], FORCED))
            elif not isinstance(error, StoreError):
                if not getattr(error, "__notes__", ()):
                    error.add_note(KEPT)
                error.add_note(FORCED)
        raise


def _run_stage(
    plan: Plan,
    planned: PlannedStage,
    device: str,
    reporter: Reporter,
    log: Callable[[str, Mapping[str, Any]], None],
    ranks: Ranks,
    wait: bool,
    trackers: OpensTrackers | None,
    show: Shows | None,
) -> bool:
    """Returns whether the stage ran; false if another process has finished its output since the plan was made."""
    output, recipe = planned.output, plan.recipe
    about = {
        "identity": planned.identity,
        "upstream": planned.upstream,
        "recipe_name": recipe.recipe_name,
        "overrides": list(recipe.origin.changes),
        "recipe": to_toml(recipe),
        "versions": versions(),
        "host": platform.node(),
        "machine": machine_description(),
    }
    inputs = {name: plan[name].output for name in planned.stage.inputs(recipe)}
    takes_part = ranks.first or planned.stage.is_shared
    waiting: dict[str, Any] = {"wait": wait, "while_waiting": ranks.check, "reporter": reporter}
    for upstream in inputs.values():
        upstream.refresh()
        if ranks.first and wait:
            # Another run may be making it again (--force).
            upstream.wait_for_writer(reporter=reporter, while_waiting=ranks.check)
    ranks.meet()
    assert planned.view is not None, planned.name
    looked_at = (upstream for name, upstream in inputs.items() if name not in planned.upstream)
    reads = (*planned.stage.reads(planned.view), *looked_at)
    taking = partial(output.writing, about, reads=reads, afresh=planned.forced, made_from=lambda: plan.store.made_from(output))
    with taking(**waiting) if ranks.first else nullcontext() as writing:
        # The other ranks, too, write only as long as the first holds the lock.
        needed, token = ranks.told(lambda: _begun(output, writing))
        if not ranks.first:
            output.share(token)
        # Now that the lock says what this run reads, nobody removes it any more.
        for upstream in inputs.values() if takes_part else ():
            ranks.check_sees(upstream.path, upstream.exists)
            upstream.require_complete()
        if needed and ranks.size > 1 and not planned.stage.is_shared:
            reporter.say(ranks.alone(planned.name))
        if needed and takes_part:
            stage_log = partial(log, planned.name)
            work = Work(planned.view, device, inputs, output, reporter, stage_log, ranks)
            if ranks.first and trackers is not None and show is not None:
                work = replace(work, trackers=partial(trackers, planned.name), show=partial(show, planned.name))
            planned.stage.run(work)
        # No rank reads an unfinished output, and the lock is held until all ranks have written.
        ranks.meet()
    return needed


def _begun(output: StageOutput, writing: Writing | None) -> tuple[bool, str]:
    """On the first rank: whether there is anything to do, and the token of the lock."""
    assert writing is not None, "the first rank holds the lock"
    return not output.is_complete, writing.token


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    # Asked for by each stage; to look up one takes as long as to write an array.
    packages = {name: version(name) for name in ("rarkit", "torch", "numpy", "zarr", "scikit-learn")}
    return packages | {"python": platform.python_version()}
