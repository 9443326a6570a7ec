"""fit: trains the tokenizer, if it learns from data."""

from __future__ import annotations

from typing import final

from rarkit.datasets.base import Dataset
from rarkit.randomness import derived_seed
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, View, Work, write_state
from rarkit.tokenizers.base import Tokenizer


@final
class FitView(View):
    """What ``fit`` reads."""

    seed: int
    dataset: Dataset
    tokenizer: Tokenizer


@final
class Fit(Stage[FitView]):
    """Training images → the tokenizer's learned state."""

    name = "fit"

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        return () if recipe.tokenizer.learns else None

    def view(self, experiment: Experiment) -> FitView | None:
        recipe = experiment.recipe
        if not recipe.tokenizer.learns:
            return None
        return FitView(seed=recipe.seed, dataset=recipe.dataset, tokenizer=recipe.tokenizer)

    def run(self, work: Work[FitView]) -> None:
        tokenizer = work.view.tokenizer
        work.reporter.say(f"fit: training tokenizer {tokenizer.name!r}")
        state = tokenizer.fit(work.view.dataset.open("train"), derived_seed(work.view.seed, "fit tokenizer"))
        write_state(work.output, state)
        work.output.finish()
