"""Trials of parts: each is built and given a tiny input before the first stage, so that no fault is found after training.

Shape letters: H, W, C height, width, channels of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rarkit.errors import DatasetError, NotFetchedError, RarkitError, WeightsError
from rarkit.pipeline.plan import Plan
from rarkit.recipe.experiment import Experiment
from rarkit.registry.component import Settings
from rarkit.stages.base import read_state
from rarkit.stages.initial_weights import changes_to
from rarkit.stages.train import TrainView

if TYPE_CHECKING:
    from torch import Tensor

MEASURING, SAMPLING = ("reference", "evaluate"), ("sample", "evaluate")
"""The stages that build the feature extractor, and those that load ``model.weights``."""


def try_parts(plan: Plan, device: str) -> None:
    """Loads ``model.weights``, looks at what ``train.init_from`` names, decodes a few codes, and takes the features of two images,
    as far as stages that will run do so.

    What learns is tried once it has learned: a tokenizer at the end of ``fit``, or here if ``fit`` is cached.

    Args:
        plan: a plan of which every stage is known; with nothing to do, nothing is tried.
        device: a torch device string.

    Raises:
        WeightsError: a file of weights is damaged, or of another network.
        PluginError: a part breaks the contract of its kind.
    """
    experiment = plan.experiment
    if plan.nothing_to_do or experiment is None:
        return
    import torch

    running = {stage.name for stage in plan.stages if stage.action == "run"}
    evaluate, tokenizer = plan.recipe.evaluate, plan.recipe.tokenizer
    with torch.inference_mode():
        initial_changes(plan)
        if not running.isdisjoint(SAMPLING):
            _load_model(experiment)
        if evaluate is not None and not evaluate.features.learns and not running.isdisjoint(MEASURING):
            evaluate.features.build({}, device)(_two_images(experiment))
        if not tokenizer.learns:
            tokenizer.check_decoding(tokenizer.build({}, device), experiment.grid, experiment.images)
        # Where another run is making it again, the stage that reads it waits for that run.
        elif plan["fit"].action == "cached" and plan["fit"].output.writer() is None:
            model = tokenizer.build(read_state(plan["fit"].output), device)
            tokenizer.check_decoding(model, experiment.grid, experiment.images)


def initial_changes(plan: Plan) -> list[str]:
    """What the training begins with if ``train.init_from`` says so, and what is adapted, a sentence without a full stop each.

    Names and shapes tell. Imports torch only if there are such weights.

    Raises:
        WeightsError: the weights are damaged, or of another model.
    """
    view = next((stage.view for stage in plan.stages if stage.name == "train" and stage.action == "run"), None)
    if not isinstance(view, TrainView) or view.initial_weights is None or plan.experiment is None:
        return []
    try:
        return changes_to(view.initial_weights, plan.experiment)
    except NotFetchedError as error:
        # An output in a store elsewhere is known by its record.
        return [f"starts from {error.place}; what is adapted is unknown until it is read"]


def unfit_weights(plan: Plan) -> dict[str, RarkitError]:
    """The errors of weight files that are there, but damaged or of another network, by the table that names them.

    The names and shapes of their tensors tell; values are mapped, not computed with. Imports torch only if there are weights.
    """
    errors: dict[str, RarkitError] = {}
    if plan.nothing_to_do or plan.experiment is None:
        return errors
    recipe, experiment = plan.recipe, plan.experiment
    loads: dict[str, tuple[Settings, Callable[[], object]]] = {"model": (recipe.model, partial(_load_model, experiment))}
    parts = {"tokenizer": recipe.tokenizer, "evaluate.features": None if recipe.evaluate is None else recipe.evaluate.features}
    for table, part in parts.items():
        if part is not None and not part.learns:
            loads[table] = part, partial(part.build, {}, "cpu")
    try:
        initial_changes(plan)
    except WeightsError as error:
        errors["train.init_from"] = error
    for table, (settings, load) in loads.items():
        if getattr(settings, "weights", None) is None or not _is_there(settings):
            continue
        try:
            load()
        except WeightsError as error:
            errors[table] = error
    return errors


def _is_there(settings: Settings) -> bool:
    """Whether all files that the settings name are on this machine. What is missing is reported by the plan."""
    try:
        settings.content()
    except (DatasetError, WeightsError, NotFetchedError):
        return False
    return True


def _load_model(experiment: Experiment) -> None:
    """Loads ``model.weights``, if there are any, on the CPU, where they are mapped instead of read."""
    model = experiment.recipe.model
    if model.weights is not None:
        model.load(model.weights, experiment.config, experiment.recipe.attention.build(), device="cpu", dtype=None)


def _two_images(experiment: Experiment) -> Tensor:
    """Images (2, H, W, C) uint8 of the experiment's size, with all levels in them."""
    import torch

    shape = 2, *experiment.image_shape
    return torch.from_numpy((np.arange(math.prod(shape)) * 37 % 256).astype(np.uint8).reshape(shape))
