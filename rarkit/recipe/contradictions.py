"""Settings of a recipe that are valid each for itself, but cannot work together, on whatever machine and data."""

from __future__ import annotations

from rarkit.errors import CapabilityError, RecipeError, sentences
from rarkit.recipe.schema import Recipe

STEPS = 1000
"""Steps at which a guidance schedule is looked at."""


def contradictions(recipe: Recipe) -> dict[str, str]:
    """Why tables of a recipe cannot be used together, by the table to change; empty if they can."""
    reasons = {}
    train, sample, model, attention = recipe.train, recipe.sample, recipe.model, recipe.attention
    dropout = model.dropped.get("attention_dropout", 0.0)
    if train is not None and dropout > 0 and not attention.has_dropout:
        reasons["attention"] = (
            f"[attention] {attention.name!r} cannot drop attention weights, but model.attention_dropout is {dropout}: set it to 0, "
            "or choose another [attention]"
        )
    if sample is not None:
        try:
            model.check_sampling(sample.precision, sample.kv_cache)
        except CapabilityError as error:
            reasons["sample"] = str(error)
        if train is not None and model.class_dropout == 0 and sample.guidance.guided_steps(STEPS) > 0:
            reasons["sample.guidance"] = (
                "sample.guidance compares with samples without a class, which the model never sees in training, because "
                "model.class_dropout is 0: set it to 0.1, say, or leave out the guidance"
            )
    return reasons


def check_contradictions(recipe: Recipe) -> None:
    """Raises RecipeError, with all contradictions of the recipe, if there are any."""
    reasons = contradictions(recipe)
    if reasons:
        raise RecipeError(*map(sentences, reasons.values()))
