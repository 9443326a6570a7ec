"""What keeps a recipe from running here: data and weights that are missing, parts that cannot work on this machine."""

from __future__ import annotations

from typing import Any

from rarkit.errors import CapabilityError, DatasetError, IncompleteError, RarkitError, WeightsError
from rarkit.pipeline.plan import Plan
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import Component, Settings
from rarkit.registry.kinds import TABLES
from rarkit.stages.train import imported


def check_ready(plan: Plan, device: str) -> Experiment:
    """The experiment of a plan that can be carried out on this device.

    Raises:
        DatasetError, WeightsError: data or weights are missing.
        IncompleteError: an output is damaged; the message says which stage to force.
        CapabilityError: a part that is needed cannot work here.
    """
    if plan.obstacle is not None:
        raise plan.obstacle
    assert plan.experiment is not None, "a recipe that was not resolved has an obstacle"
    for stage in plan.stages:
        if stage.action == "damaged":
            raise IncompleteError(f"the output of stage {stage.name!r} at {stage.output.path} is damaged: {stage.reason}.")
    if not plan.nothing_to_do:
        for reason in part_obstacles(plan.recipe, device).values():
            raise CapabilityError(reason)
    return plan.experiment


def part_obstacles(recipe: Recipe, device: str) -> dict[str, str]:
    """Why parts of a recipe cannot work on a device, by the table that names them."""
    obstacles = {}
    train, attention = recipe.train, recipe.attention
    dropout = recipe.model.dropped.get("attention_dropout", 0.0)
    if train is not None and dropout > 0 and not attention.has_dropout:
        obstacles["attention"] = (
            f"[attention] {attention.name!r} cannot drop attention weights, and model.attention_dropout is {dropout}: set it to 0, "
            "or choose another [attention]"
        )
    if recipe.sample is not None:
        try:
            recipe.model.check_sampling(recipe.sample.precision, recipe.sample.kv_cache)
        except CapabilityError as error:
            obstacles["sample"] = str(error)
        if recipe.sample.precision == "int8" and device != "cpu":
            obstacles["sample"] = "sample.precision 'int8' is for CPUs: set it to 'bfloat16', or run with --device cpu"
    dtype = train.precision if train is not None else "float32"
    for table in TABLES:
        part: Any = recipe
        for key in table.split("."):
            part = getattr(part, key, None)
        if isinstance(part, Component) and table not in obstacles:
            reason = part.capability(device, dtype)
            if reason is not None:
                obstacles[table] = f"[{table}] {part.name!r} cannot work here: {reason}"
    return obstacles


def missing_content(recipe: Recipe, experiment: Experiment | None) -> dict[str, RarkitError]:
    """The data and weights that a recipe names and that are missing, by the table that names them."""
    missing: dict[str, RarkitError] = {}
    tables: dict[str, Settings] = {"dataset": recipe.dataset, "tokenizer": recipe.tokenizer, "model": recipe.model}
    if recipe.evaluate is not None:
        tables["evaluate.features"] = recipe.evaluate.features
    for table, settings in tables.items():
        try:
            if table == "dataset" and experiment is None:
                recipe.dataset.info()
            settings.content()
        except (DatasetError, WeightsError) as error:
            missing[table] = error
    if recipe.train is not None and recipe.train.tokens is not None and experiment is not None:
        try:
            imported(recipe.train.tokens, experiment)
        except DatasetError as error:
            missing["train.tokens"] = error
    return missing
