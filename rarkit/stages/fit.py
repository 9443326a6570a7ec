"""fit: trains the tokenizer, where it learns from data."""

from __future__ import annotations

from typing import Any, final

from rarkit.randomness import derived_seed
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, write_state


@final
class Fit(Stage):
    """Training images → what the tokenizer learned."""

    name = "fit"

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.tokenizer.learns

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        return ()

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        return {"seed": recipe.seed, "dataset": recipe.dataset.identity(), "tokenizer": recipe.tokenizer.identity()}

    def run(self, work: Work) -> None:
        recipe = work.recipe
        work.reporter.say(f"fit: training tokenizer {recipe.tokenizer.name!r}")
        state = recipe.tokenizer.fit(recipe.dataset.open("train"), derived_seed(recipe.seed, "fit tokenizer"))
        write_state(work.output, state)
        work.output.finish()
