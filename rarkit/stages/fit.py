"""fit: trains the tokenizer, if it learns from data."""

from __future__ import annotations

from typing import Annotated, final

from rarkit.datasets.base import Dataset
from rarkit.images import ImageInfo
from rarkit.randomness import derived_seed
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.stages.base import Stage, View, Work, write_state
from rarkit.tokenizers.base import Tokenizer


@final
class FitView(View):
    """What ``fit`` reads."""

    seed: int
    dataset: Dataset
    tokenizer: Tokenizer
    # Dataset and tokenizer determine the rest, which is only for a check.
    grid: Annotated[Grid, NotInFingerprint()]
    images: Annotated[ImageInfo, NotInFingerprint()]


@final
class Fit(Stage[FitView]):
    """Training images → the tokenizer's learned state."""

    name = "fit"
    is_shared = True

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        return () if recipe.tokenizer.learns else None

    def view(self, experiment: Experiment) -> FitView | None:
        recipe = experiment.recipe
        if not recipe.tokenizer.learns:
            return None
        return FitView(
            seed=recipe.seed, dataset=recipe.dataset, tokenizer=recipe.tokenizer, grid=experiment.grid, images=experiment.images
        )

    def run(self, work: Work[FitView]) -> None:
        import torch

        view, tokenizer, ranks = work.view, work.view.tokenizer, work.ranks
        what = f"fit: training tokenizer {tokenizer.name!r}"
        work.reporter.say(what if tokenizer.learns_on_all else ranks.alone(what))
        if not (ranks.first or tokenizer.learns_on_all):
            return
        state = tokenizer.learn(view.dataset.open("train"), derived_seed(view.seed, "fit tokenizer"), work.learning())
        if not ranks.first:
            return
        with torch.inference_mode():
            tokenizer.check_decoding(tokenizer.build(state, work.device), view.grid, view.images)
        write_state(work.output, state)
        work.output.finish()
        work.remove_checkpoints()
