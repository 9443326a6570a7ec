"""Plans a recipe's stages against a store, and says why each runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from rarkit.cache.fingerprint import differences, fingerprint
from rarkit.cache.output import StageOutput
from rarkit.cache.store import Store
from rarkit.errors import DatasetError, IncompleteError, RarkitError, RecipeError, WeightsError
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage
from rarkit.stages.evaluate import Evaluate
from rarkit.stages.fit import Fit
from rarkit.pipeline.preflight import cure, no_shape
from rarkit.stages.reference import Reference
from rarkit.stages.sample import Sample
from rarkit.stages.tokenize import Tokenize
from rarkit.stages.train import Train

STAGES: tuple[Stage, ...] = (Fit(), Tokenize(), Train(), Sample(), Reference(), Evaluate())
"""In an order in which each comes after those that it reads."""
STAGE_NAMES = tuple(stage.name for stage in STAGES)
DEFAULT_STORE = "rarkit-store"

Action = Literal["cached", "run", "not needed", "damaged", "left out", "blocked"]
_UNKNOWN = "unknown"
"""In place of a fingerprint that cannot be known; nothing is ever stored there."""


@final
@dataclass(frozen=True)
class PlannedStage:
    """What will become of one stage, and why."""

    stage: Stage
    output: StageOutput
    upstream: Mapping[str, str]
    identity: Mapping[str, Any]
    action: Action
    reason: str
    forced: bool = False
    obstacle: RarkitError | None = None
    """What keeps a blocked stage from being planned: data or weights that are missing."""

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def fingerprint(self) -> str | None:
        """The name of its output; None where it depends on something that is missing."""
        return None if self.obstacle else self.output.fingerprint


@final
@dataclass(frozen=True)
class Plan:
    """All stages of a recipe, in the order in which they run."""

    recipe: Recipe
    store: Store
    stages: tuple[PlannedStage, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether every stage is there already."""
        return all(stage.action in ("cached", "not needed") for stage in self.stages)

    @property
    def obstacle(self) -> RarkitError | None:
        """What the first blocked stage lacks; None where nothing is missing."""
        found = next((stage.obstacle for stage in self.stages if stage.action == "blocked"), None)
        return None if found is None else type(found)(f"{cure(found)} rarkit plan lists all that is missing.")

    def __getitem__(self, name: str) -> PlannedStage:
        return next(stage for stage in self.stages if stage.name == name)

    def outputs(self) -> dict[str, StageOutput]:
        """The outputs that are complete now, by stage."""
        return {stage.name: stage.output for stage in self.stages if stage.output.record().get("complete")}


def plan(
    recipe: Recipe,
    store: str | Store = DEFAULT_STORE,
    *,
    start: str | None = None,
    until: str | None = None,
    force: tuple[str, ...] = (),
) -> Plan:
    """Says for each stage of a recipe whether its output is in the store, and if not, why not. Starts and writes nothing.

    Fingerprints cover the content of data and weights. Where these are missing, the stages that depend on them are "blocked":
    nothing can be said of them, and ``run`` raises what is missing.

    Args:
        recipe: the recipe.
        store: any fsspec URL.
        start: run this stage and all after it anew; those before it must be in the store.
        until: leave out the stages after this one.
        force: run these stages anew even if their output is there.

    Raises:
        RecipeError: ``start``, ``until`` or ``force`` names no stage of this recipe.
        GridError: tokenizer, images and scan order do not go together.
        StoreError: the store cannot be read.
    """
    store = Store(store) if isinstance(store, str) else store
    obstacle = no_shape(recipe)
    stages = [stage for stage in STAGES if stage.wanted(recipe)]
    names = [stage.name for stage in stages]
    for option, name in [("--from", start), ("--until", until), *(("--force", name) for name in force)]:
        if name is not None and name not in names:
            raise RecipeError(f"{option} {name}: this recipe has no such stage. It has: {', '.join(names)}.")
    forced = set(force) | set(names[names.index(start) :] if start is not None else [])
    planned: dict[str, PlannedStage] = {}
    for stage in stages:
        planned[stage.name] = _planned(stage, recipe, store, planned, stage.name in forced, obstacle)
    last = names.index(until) if until is not None else len(names) - 1
    return Plan(recipe, store, tuple(_pruned(planned, names[last + 1 :], start)))


def _planned(
    stage: Stage,
    recipe: Recipe,
    store: Store,
    before: Mapping[str, PlannedStage],
    forced: bool,
    obstacle: RarkitError | None,
) -> PlannedStage:
    obstacle = next((above for name in stage.upstream(recipe) if (above := before[name].obstacle)), obstacle)
    identity: dict[str, Any] = {}
    if obstacle is None:
        try:
            identity = {"version": stage.version, **stage.identity(recipe)}
        except (DatasetError, WeightsError) as error:
            obstacle = error
    if obstacle is not None:
        upstream = dict.fromkeys(stage.upstream(recipe), _UNKNOWN)
        reason = f"needs {'weights' if isinstance(obstacle, WeightsError) else 'data'} that are missing"
        return PlannedStage(stage, store.output(stage.name, _UNKNOWN), upstream, {}, "blocked", reason, forced, obstacle)
    upstream = {name: before[name].output.fingerprint for name in stage.upstream(recipe)}
    output = store.output(stage.name, fingerprint(stage.name, identity, upstream))

    def found(action: Action, reason: str) -> PlannedStage:
        return PlannedStage(stage, output, upstream, identity, action, reason, forced)

    if forced:
        return found("run", "asked for")
    try:
        record = output.record()
        if record.get("complete"):
            defect = output.defect()
            return found("cached", "") if defect is None else found("damaged", f"{defect}; make it again with --force {stage.name}")
    except IncompleteError:
        return found("damaged", f"its zarr.json is not readable; make it again with --force {stage.name}")
    if record:
        return found("run", "goes on where an earlier run stopped")
    return found("run", _why_new(stage, recipe, store, identity, upstream))


def _why_new(stage: Stage, recipe: Recipe, store: Store, identity: Mapping[str, Any], upstream: Mapping[str, str]) -> str:
    """What is different from the last output of this stage that the same recipe made."""
    records = [output.record() for output in store.outputs(stage.name)]
    same = [record for record in records if record.get("complete") and record.get("recipe_name") == recipe.recipe_name]
    if not same:
        return "not in the store yet"
    last = max(same, key=lambda record: float(record["finished"]))
    changed = differences(last["identity"], identity)
    above = [name for name in upstream if last["upstream"].get(name) != upstream[name]]
    reasons = [f"settings changed: {', '.join(changed)}"] if changed else []
    reasons += [f"upstream changed: {', '.join(above)}"] if above else []
    return "; ".join(reasons)


def _pruned(planned: Mapping[str, PlannedStage], left_out: list[str], start: str | None) -> list[PlannedStage]:
    """The stages without those that nobody needs: absent ones whose readers are all in the store."""
    names, kept = list(planned), dict(planned)
    # From the end, so that a stage which is not needed needs nothing either.
    for index, name in reversed(list(enumerate(names))):
        stage = kept[name]
        readers = [other for other in kept.values() if name in other.upstream and other.name not in left_out]
        if name in left_out:
            kept[name] = _changed(stage, "left out", "after --until")
        elif start is not None and index < names.index(start) and stage.action not in ("cached", "blocked"):
            raise RecipeError(f"--from {start}: stage {name!r} before it is not in the store. Run without --from first.")
        elif stage.action == "run" and not stage.forced and readers and not any(_reads(other) for other in readers):
            kept[name] = _changed(stage, "not needed", "what reads it is in the store")
    return list(kept.values())


def _reads(stage: PlannedStage) -> bool:
    return stage.action in ("run", "damaged", "blocked")


def _changed(stage: PlannedStage, action: Action, reason: str) -> PlannedStage:
    return dataclasses.replace(stage, action=action, reason=reason, forced=False)
