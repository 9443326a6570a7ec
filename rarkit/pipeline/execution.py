"""Carries a plan out, stage by stage."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, final

from rarkit.pipeline.cpu_threads import sensible_threads
from rarkit.pipeline.plan import Plan, PlannedStage
from rarkit.recipe.text import to_toml
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import ALONE, Ranks
from rarkit.stages.base import Work


@final
@dataclass(frozen=True)
class StageResult:
    """What a stage came to in one run."""

    name: str
    fingerprint: str
    action: Literal["ran", "cached"]
    seconds: float
    reason: str


def execute(
    plan: Plan, device: str, reporter: Reporter, log: Callable[[str, Mapping[str, Any]], None], ranks: Ranks = ALONE
) -> list[StageResult]:
    """Runs what the plan says, each output locked while it is written.

    Args:
        plan: from ``plan``; call ``check_ready`` first.
        device: a torch device string.
        reporter: shows progress.
        log: takes (stage, record) as records come in.
        ranks: the processes that carry out the same plan, each in its own call.
    """
    if ranks.first and not plan.nothing_to_do:
        plan.store.check_writable()
    results = []
    for planned in plan.stages:
        if planned.action == "cached":
            results.append(StageResult(planned.name, planned.output.fingerprint, "cached", 0.0, planned.reason))
        if planned.action != "run":
            continue
        started = time.monotonic()
        with sensible_threads(plan.experiment, device):
            _run_stage(plan, planned, device, reporter, log, ranks)
        seconds = time.monotonic() - started
        reporter.say(f"{planned.name}: done in {seconds:,.1f} s")
        results.append(StageResult(planned.name, planned.output.fingerprint, "ran", seconds, planned.reason))
    return results


def _run_stage(
    plan: Plan,
    planned: PlannedStage,
    device: str,
    reporter: Reporter,
    log: Callable[[str, Mapping[str, Any]], None],
    ranks: Ranks,
) -> None:
    output, recipe = planned.output, plan.recipe
    about = {
        "identity": planned.identity,
        "upstream": planned.upstream,
        "recipe_name": recipe.recipe_name,
        "recipe": to_toml(recipe),
        "versions": versions(),
        "host": platform.node(),
    }
    inputs = {name: plan[name].output for name in planned.upstream}
    works = ranks.first or planned.stage.is_shared
    if works:
        for upstream in inputs.values():
            upstream.refresh()
            ranks.check_sees(upstream.path, upstream.exists)
            upstream.require_complete()
    with output.writing(about, afresh=planned.forced) if ranks.first else nullcontext():
        # Another process may have finished it while this one waited for nothing but its own plan.
        needed = ranks.told(lambda: not output.record().get("complete"))
        if needed and works:
            assert planned.view is not None, planned.name
            work = Work(planned.view, device, inputs, output, reporter, lambda record: log(planned.name, record), ranks)
            planned.stage.run(work)
        # Nobody reads what is not finished, and the lock is held until nobody writes.
        ranks.meet()


def versions() -> dict[str, str]:
    """The versions of what decides results."""
    return {name: version(name) for name in ("rarkit", "torch", "numpy", "zarr", "scikit-learn")} | {
        "python": platform.python_version()
    }
