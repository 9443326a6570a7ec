"""Checks that a recipe can run here: that data and weights are present, and that its parts support this machine."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from rarkit.engine.degrees import degrees
from rarkit.engine.settings import TrainSettings
from rarkit.errors import (
    CapabilityError,
    DatasetError,
    IncompleteError,
    NotFetchedError,
    RarkitError,
    RecipeError,
    WeightsError,
)
from rarkit.pipeline.plan import Plan
from rarkit.recipe.contradictions import contradictions
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.schema import Recipe
from rarkit.recipe.sources import part_tables
from rarkit.registry.component import Settings
from rarkit.registry.kinds import KINDS
from rarkit.registry.loader import parts
from rarkit.runtime.machine import auto_precision
from rarkit.stages.initial_weights import initial_weights
from rarkit.stages.train import imported
from rarkit.trackers.base import Tracker
from rarkit.trackers.consent import refusal


def check_ready(plan: Plan, device: str, processes: int = 1) -> Experiment:
    """Checks that a plan can be executed on this device, by so many processes, and returns its experiment.

    Raises:
        DatasetError, WeightsError: data or weights are missing.
        IncompleteError: an output is damaged; the message names the stage to force.
        CapabilityError: a part of the recipe cannot be used here.
        NotFetchedError: the plan was made without fetching what it depends on.
    """
    if plan.obstacle is not None:
        raise plan.obstacle
    if plan.not_fetched is not None:
        raise plan.not_fetched
    assert plan.experiment is not None, "an unresolved recipe has an obstacle"
    for stage in plan.stages:
        if stage.action == "damaged":
            # Of a newer rarkit, the record itself says what to do.
            stage.output.record()
            raise IncompleteError(f"the output of stage {stage.name!r} at {stage.output.path} is damaged: {stage.reason}.")
    if not plan.nothing_to_do:
        for reason in plan_obstacles(plan, device, processes).values():
            raise CapabilityError(reason)
    return plan.experiment


def plan_obstacles(plan: Plan, device: str, processes: int = 1) -> dict[str, str]:
    """Why a plan cannot be executed on a device, by so many processes, by table or setting; of training only if it will train."""
    trains = any(stage.name == "train" and stage.action not in ("cached", "not needed", "left out") for stage in plan.stages)
    return part_obstacles(plan.recipe, device, processes if trains else None)


def part_obstacles(recipe: Recipe, device: str, processes: int | None = 1) -> dict[str, str]:
    """Why a recipe cannot be used on a device, by the table or setting to change.

    Args:
        recipe: whose parts are asked what they can do.
        device: ``"cpu"``, ``"cuda"``, …
        processes: those that train together; None if nothing is trained.
    """
    obstacles, train = contradictions(recipe), recipe.train
    if recipe.sample is not None and recipe.sample.precision == "int8" and device != "cpu":
        obstacles.setdefault("sample", "sample.precision 'int8' is for CPUs only: set it to 'bfloat16', or run with --device cpu")
    if train is not None and processes is not None:
        obstacles |= _training_obstacles(train, processes)
    dtype = train.precision if train is not None else "float32"
    dtype = auto_precision(device) if dtype == "auto" else dtype
    for table, part in part_tables(recipe):
        if table not in obstacles:
            reason = part.capability(device, dtype)
            if reason is None and isinstance(part, Tracker):
                reason = refusal(part)
            if reason is not None:
                obstacles[table] = f"{KINDS[part.kind].header} {part.name!r} cannot be used here: {reason}"
    return obstacles


def _training_obstacles(train: TrainSettings, processes: int) -> dict[str, str]:
    reasons = {}
    try:
        degrees(train, processes)
    except RecipeError as error:
        reasons["train"] = str(error)
    return reasons


def usable_backends(recipe: Recipe, device: str) -> dict[str, str | None]:
    """For each installed attention backend by name, why this recipe could not use it on a device; None if it could."""
    reasons: dict[str, str | None] = {}
    for name, backend in parts().attention_backends.items():
        if name == recipe.attention.name:
            chosen: Any = recipe.attention
        else:
            try:
                chosen = backend()
            except ValidationError:
                reasons[name] = f"[attention] {name!r} has settings without a default"
                continue
        reasons[name] = part_obstacles(recipe.model_copy(update={"attention": chosen}), device, None).get("attention")
    return reasons


def missing_content(recipe: Recipe, experiment: Experiment | None) -> dict[str, RarkitError]:
    """The errors for missing data and weights of a recipe, by the table or key that names them; not of what was not fetched."""
    missing: dict[str, RarkitError] = {}
    tables: dict[str, Settings] = {"dataset": recipe.dataset, "tokenizer": recipe.tokenizer, "model": recipe.model}
    if recipe.evaluate is not None:
        tables["evaluate.features"] = recipe.evaluate.features
    for table, settings in tables.items():
        try:
            if table == "dataset" and experiment is None:
                recipe.dataset.info()
            settings.content()
        except NotFetchedError:
            continue  # which the plan says of the stages that need it
        except (DatasetError, WeightsError) as error:
            missing[table] = error
    if recipe.train is None or experiment is None:
        return missing
    for setting, find in (("tokens", imported), ("init_from", initial_weights)):
        if getattr(recipe.train, setting) is None:
            continue
        try:
            find(experiment)
        except NotFetchedError:
            continue  # likewise
        except (DatasetError, WeightsError) as error:
            missing[f"train.{setting}"] = error
    return missing
