"""The experiment: a recipe resolved once, read by the plan and the stages.

Shape letters: L tokens per image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError, UserError
from rarkit.images import ImageInfo, Split
from rarkit.models.base import ModelCosts
from rarkit.models.config import ModelConfig
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.recipe.classes import find_classes
from rarkit.recipe.schema import Recipe
from rarkit.recipe.sources import check_known
from rarkit.registry.bounds import MOST_SAMPLES
from rarkit.sampling.settings import SampleSettings

Grid = tuple[int, int]
"""Height and width of an image's token grid."""


@final
@dataclass(frozen=True)
class Experiment:
    """A resolved recipe: image shape and classes, token grid, model configuration, permutation schedule."""

    recipe: Recipe
    images: ImageInfo
    splits: tuple[Split, ...]
    grid: Grid
    codebook_size: int
    config: ModelConfig
    schedule: PermutationSchedule
    """The recipe's schedule, or the default of its model family."""

    @cached_property
    def order_L(self) -> NDArray[np.int64]:
        """The raster index visited at each step."""
        return self.recipe.scan_order.order(*self.grid)

    @property
    def costs(self) -> ModelCosts:
        """Memory and FLOPs of training and sampling the model."""
        return self.recipe.model.costs(self.config)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.images.height, self.images.width, self.images.channels

    @property
    def held_out_split(self) -> Split:
        """``"test"``, or ``"train"`` if the dataset has no test split."""
        return "test" if "test" in self.splits else "train"

    @property
    def train_seed(self) -> int:
        """The seed of training: ``train.seed``, or the recipe's."""
        return _given(self.recipe.train, self.recipe.seed)

    @property
    def sample_seed(self) -> int:
        """The seed of sampling: ``sample.seed``, or the recipe's."""
        return _given(self.recipe.sample, self.recipe.seed)

    @cached_property
    def sample_classes(self) -> tuple[int, ...]:
        """Labels of the classes to sample; empty if the recipe does not sample.

        Raises:
            RecipeError: ``sample.classes`` names a class that does not exist, or one twice, or a number with two meanings; or there
                are too many samples.
        """
        sample = self.recipe.sample
        if sample is None:
            return ()
        classes = tuple(range(self.images.num_classes))
        if sample.classes is not None:
            try:
                classes = tuple(find_classes(sample.classes, self.images.class_names))
            except UserError as error:
                raise RecipeError(f"sample.classes, with dataset {self.recipe.dataset.name!r}: {error}") from error
        if len(classes) * sample.per_class > MOST_SAMPLES:
            raise RecipeError(
                f"sample.per_class: {sample.per_class:,} images of each of {len(classes):,} classes are more than the "
                f"{MOST_SAMPLES:,} of one recipe. Set per_class to {MOST_SAMPLES // len(classes):,} or less, or name fewer classes."
            )
        return classes

    def with_recipe(self, recipe: Recipe) -> Experiment:
        """This experiment with another recipe, which may differ only in what resolving does not read: the scan order, say.

        Raises:
            GridError: the scan order does not support the grid.
            PluginError: the scan order breaks its contract.
        """
        recipe.scan_order.order(*self.grid)
        return replace(self, recipe=recipe)


def _given(settings: TrainSettings | SampleSettings | None, default: int) -> int:
    return default if settings is None or settings.seed is None else settings.seed


def resolve(recipe: Recipe, images: ImageInfo | None = None, splits: tuple[Split, ...] | None = None) -> Experiment:
    """Resolves a recipe, and checks what its parts say: the order on this grid, the random ratio over the whole training.

    Args:
        recipe: a valid recipe.
        images: size and classes of the images, if already known; None asks the dataset.
        splits: the splits of the dataset, likewise.

    Raises:
        DatasetError: size and classes of the images cannot be determined without the data.
        GridError: the tokenizer or the feature extractor does not support the images, or the scan order the grid.
        RecipeError: ``sample.classes`` names a class that the dataset does not have, or a number with two meanings.
        PluginError: a part breaks the contract of its kind, or is neither installed nor registered.
    """
    check_known(recipe)
    images = recipe.dataset.info() if images is None else images
    if recipe.evaluate is not None:
        recipe.evaluate.features.check_images(images)
    grid = recipe.tokenizer.grid(images)
    recipe.scan_order.order(*grid)  # checked now, so that it is not found wrong after training
    codebook_size = recipe.tokenizer.codebook_size()
    experiment = Experiment(
        recipe=recipe,
        images=images,
        splits=recipe.dataset.splits() if splits is None else splits,
        grid=grid,
        codebook_size=codebook_size,
        config=recipe.model.config(grid=grid, codebook_size=codebook_size, num_classes=images.num_classes),
        schedule=recipe.permutation_schedule or recipe.model.default_schedule(),
    )
    if recipe.train is not None:
        experiment.schedule.check(recipe.train.steps)
    _ = experiment.sample_classes  # resolved now, so that a class that does not exist is reported now
    return experiment
