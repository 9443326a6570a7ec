"""Plans a recipe's stages against a store, with the reason why each runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from rarkit.cache.fingerprint import fingerprint
from rarkit.cache.output import StageOutput
from rarkit.cache.record import SEALED_IN_PART, UNFINISHED
from rarkit.cache.store import Store
from rarkit.errors import (
    DatasetError,
    IncompleteError,
    NotFetchedError,
    RarkitError,
    RecipeError,
    WeightsError,
    did_you_mean,
    sentences,
)
from rarkit.files.restraint import fetching
from rarkit.pipeline.last_run import LastRun
from rarkit.pipeline.published import with_published
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.make import AnyRecipe, as_recipe
from rarkit.recipe.schema import Recipe
from rarkit.registry.addresses import Address, addresses
from rarkit.registry.exits import exits_are_errors
from rarkit.registry.inputs import names as listed_names
from rarkit.rendering.notebook import heading, table
from rarkit.runtime.random_state import random_state_kept
from rarkit.stages.base import STARTS_AGAIN, Stage, View
from rarkit.stages.evaluate import Evaluate
from rarkit.stages.fit import Fit
from rarkit.stages.reference import Reference
from rarkit.stages.sample import Sample
from rarkit.stages.tokenize import Tokenize
from rarkit.stages.train import Train

STAGES: tuple[Stage[Any], ...] = (Fit(), Tokenize(), Train(), Sample(), Reference(), Evaluate())
"""All stages; each comes after those it reads."""
STAGE_NAMES = tuple(stage.name for stage in STAGES)
DEFAULT_STORE = "rarkit-store"

Action = Literal["cached", "run", "not needed", "damaged", "left out", "blocked", "unknown"]
_UNKNOWN = "unknown"
"""Placeholder for a fingerprint that cannot be determined; nothing is ever stored under it."""


@final
@dataclass(frozen=True)
class PlannedStage:
    """What will happen to one stage, and why."""

    stage: Stage[Any]
    output: StageOutput
    upstream: Mapping[str, str]
    action: Action
    reason: str
    view: View | None = None
    """What the stage will read of the experiment; None if it is blocked or unknown."""
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the view contributes to the fingerprint."""
    forced: bool = False
    obstacle: RarkitError | None = None
    """Why a blocked or unknown stage cannot be planned: data or weights that are missing, or that were not fetched."""

    def __repr__(self) -> str:
        return f"PlannedStage({self.name!r}, {self.action!r}, {self.reason!r})"

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def fingerprint(self) -> str | None:
        """The name of its output; None if it depends on data or weights that are missing, or that were not fetched."""
        return None if self.obstacle else self.output.fingerprint


@final
@dataclass(frozen=True)
class Plan:
    """All stages of a recipe, in the order in which they run."""

    recipe: Recipe
    experiment: Experiment | None
    """The resolved recipe; None if size and classes of its images cannot be determined without the data."""
    store: Store
    stages: tuple[PlannedStage, ...]

    def __repr__(self) -> str:
        stages = ", ".join(f"{stage.name}: {stage.action}" for stage in self.stages)
        return f"Plan({self.recipe.recipe_name!r}, {stages})"

    def _repr_html_(self) -> str:
        """Stages, and what will happen to each, for notebooks."""
        rows = [(stage.name, stage.action, stage.reason) for stage in self.stages]
        return str(heading(self.recipe.recipe_name, self.recipe.title) + table(("stage", "action", "reason"), rows))

    @property
    def nothing_to_do(self) -> bool:
        """Whether every stage that is needed is cached."""
        return all(stage.action in ("cached", "not needed") for stage in self.stages)

    @property
    def obstacle(self) -> RarkitError | None:
        """Why the first blocked stage cannot be planned; None if no stage is blocked."""
        first = next((stage.obstacle for stage in self.stages if stage.action == "blocked"), None)
        return (
            None
            if first is None
            else type(first)(sentences(with_published(first), "rarkit plan lists everything that is missing."))
        )

    @property
    def lacking(self) -> list[str]:
        """What will not be measured, because the reference batch does not have it: a sentence each."""
        evaluate = self.recipe.evaluate
        reference = next((stage for stage in self.stages if stage.name == "reference"), None)
        return evaluate.features.lacking() if evaluate and reference and reference.obstacle is None else []

    @property
    def not_fetched(self) -> NotFetchedError | None:
        """What was not fetched, and the first stage of unknown fingerprint depends on; None if there is no such stage."""
        return next((stage.obstacle for stage in self.stages if isinstance(stage.obstacle, NotFetchedError)), None)

    @property
    def addresses(self) -> list[Address]:
        """What the recipe names: the paths and URLs that a run will read."""
        return list(addresses(self.recipe))

    @property
    def links_out(self) -> Mapping[str, int]:
        """How many links in the folder of the data lead out of it, by the folder to which they lead; none of unusable data."""
        unusable = any(isinstance(stage.obstacle, DatasetError) for stage in self.stages)
        return {} if unusable else self.recipe.dataset.links_out()

    def __getitem__(self, name: str) -> PlannedStage:
        planned = {stage.name: stage for stage in self.stages}
        if name not in planned:
            raise RecipeError(f"the plan has no stage {name!r}{did_you_mean(name, planned)} It has: {', '.join(planned)}.")
        return planned[name]

    def outputs(self) -> dict[str, StageOutput]:
        """The outputs that are complete at the moment, by stage."""
        return {stage.name: stage.output for stage in self.stages if stage.output.is_complete}


@exits_are_errors()
@random_state_kept()
def plan(
    recipe: AnyRecipe,
    store: str | os.PathLike[str] | Store = DEFAULT_STORE,
    *,
    start: str | None = None,
    until: str | None = None,
    force: tuple[str, ...] = (),
    fetch: bool = False,
) -> Plan:
    """Determines for each stage of a recipe whether its output is in the store, and why not if it is not. Runs and writes nothing.

    Fingerprints cover the content of data and weights. Stages that depend on missing data or weights are "blocked", and ``run``
    raises what is missing. From other machines it fetches what is small: listings, headers, labels. Weights that lie there and
    were not fetched before leave the stages that depend on them "unknown".

    Args:
        recipe: a recipe, the path or URL of its file, or its tables as ``rarkit.make_recipe`` takes them.
        store: path or fsspec URL of the store.
        start: rerun this stage and all after it; those before it must be in the store.
        until: leave out the stages after this one.
        force: rerun these stages even if their output is in the store.
        fetch: fetch weights too, as a run does.

    Raises:
        RecipeError: ``start``, ``until`` or ``force`` names a stage that this recipe does not have, or a stage before ``start`` is
            not in the store.
        GridError: the tokenizer does not support the images, or the scan order the grid.
        StoreError: the store cannot be read.
    """
    recipe, opened = as_recipe(recipe), store if isinstance(store, Store) else Store(store)
    with fetching("all" if fetch else "little"):
        return _plan(recipe, opened, start, until, force)


def _plan(recipe: Recipe, store: Store, start: str | None, until: str | None, force: tuple[str, ...]) -> Plan:
    experiment, obstacle = _resolved(recipe)
    stages = [stage for stage in STAGES if stage.upstream(recipe) is not None]
    names = [stage.name for stage in stages]
    force = listed_names("force", force)
    for option, name in [("--from", start), ("--until", until), *(("--force", name) for name in force)]:
        if name is not None and name not in names:
            raise RecipeError(f"{option} {name}: this recipe has no such stage. It has: {', '.join(names)}.")
    first = names.index(start) if start is not None else len(names)
    last = names.index(until) if until is not None else len(names) - 1
    if start is not None and first > last:
        raise RecipeError(f"--from {start} comes after --until {until}, so nothing would run. Swap the two.")
    forced = {*force, *names[first:]}
    planned: dict[str, PlannedStage] = {}
    last_run = LastRun(recipe, store)
    for stage in stages:
        planned[stage.name] = _planned(stage, recipe, experiment, store, planned, stage.name in forced, obstacle, last_run)
    return Plan(recipe, experiment, store, tuple(_pruned(recipe, planned, names[last + 1 :], start)))


def _resolved(recipe: Recipe) -> tuple[Experiment | None, RarkitError | None]:
    """The experiment, or the error if it cannot be determined without the data, or without the file that the tokenizer is in."""
    try:
        return resolve(recipe), None
    except (DatasetError, WeightsError, NotFetchedError) as error:
        return None, error


def _planned(
    stage: Stage[Any],
    recipe: Recipe,
    experiment: Experiment | None,
    store: Store,
    before: Mapping[str, PlannedStage],
    forced: bool,
    obstacle: RarkitError | None,
    last_run: LastRun,
) -> PlannedStage:
    names = stage.upstream(recipe) or ()
    obstacle = next((above for name in names if (above := before[name].obstacle)), obstacle)
    view, identity = None, {}
    if obstacle is None and experiment is not None:
        try:
            view = stage.view(experiment)
            identity = stage.identity(view)
        except (DatasetError, WeightsError, IncompleteError, NotFetchedError) as error:
            obstacle = error
    if obstacle is not None:
        upstream = dict.fromkeys(names, _UNKNOWN)
        action: Action = "unknown" if isinstance(obstacle, NotFetchedError) else "blocked"
        output = store.output(stage.name, _UNKNOWN)
        return PlannedStage(stage, output, upstream, action, _why(obstacle), forced=forced, obstacle=obstacle)
    upstream = {name: before[name].output.fingerprint for name in names}
    output = store.output(stage.name, fingerprint(stage.name, identity, upstream))
    action, reason = _state(stage, view, output, forced)
    if not reason and action == "run":
        reason = last_run.why_new(stage.name, identity, upstream)
    return PlannedStage(stage, output, upstream, action, reason, view, identity, forced)


def _why(obstacle: RarkitError) -> str:
    if isinstance(obstacle, NotFetchedError):
        return f"unknown until {obstacle.place} is read"
    return "weights are missing or unusable" if isinstance(obstacle, WeightsError) else "data is missing or unusable"


def _state(stage: Stage[Any], view: View | None, output: StageOutput, forced: bool) -> tuple[Action, str]:
    """The action that follows from the state of an output, and the reason (empty if there is no output, or a whole one)."""
    if forced:
        return "run", "forced"
    if output.is_newer:
        return "damaged", "a newer rarkit wrote it: update rarkit, or choose another store"
    if not output.exists():
        return "run", ""
    defect = output.defect()
    if defect is None:
        return "cached", "" if output.begun().is_sealed else SEALED_IN_PART
    if (writer := output.writer()) is not None:
        # It is being made, perhaps again (--force).
        return "run", f"in progress: {writer} is making it"
    if defect == UNFINISHED:
        return "run", _goes_on(stage, view, output)
    return "damaged", f"{defect}; recompute it with --force {output.stage}"


def _goes_on(stage: Stage[Any], view: View | None, output: StageOutput) -> str:
    place = stage.left_off(view, output)
    return f"goes on after {place}" if place else STARTS_AGAIN


def _pruned(recipe: Recipe, planned: Mapping[str, PlannedStage], left_out: list[str], start: str | None) -> list[PlannedStage]:
    """The stages, in which those after ``--until`` are left out, and those that no stage to run reads are not needed."""
    names, kept = list(planned), dict(planned)
    # Backwards, because a stage that is not needed does not need its upstream stages either.
    for index, name in reversed(list(enumerate(names))):
        stage = kept[name]
        readers = [kept[other] for other in names if other not in left_out and name in kept[other].stage.inputs(recipe)]
        if name in left_out:
            kept[name] = dataclasses.replace(stage, action="left out", reason="after --until", forced=False)
        elif start is not None and index < names.index(start) and stage.action not in ("cached", "blocked", "unknown"):
            raise RecipeError(f"--from {start} needs stage {name!r}, which is not in the store. Run without --from first.")
        elif stage.action == "run" and not stage.forced and readers and not any(_reads(reader) for reader in readers):
            kept[name] = dataclasses.replace(stage, action="not needed", reason="all stages that read it are cached")
    return list(kept.values())


def _reads(stage: PlannedStage) -> bool:
    """Whether the stage will read its upstream outputs."""
    return stage.action in ("run", "damaged", "blocked", "unknown")
