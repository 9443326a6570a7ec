"""A recipe resolved once: what plan and stages read.

Shape letters: L tokens of an image, M samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import RecipeError
from rarkit.images import ImageInfo, Split
from rarkit.models.base import ModelCosts
from rarkit.models.config import ModelConfig
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.recipe.schema import Recipe

Grid = tuple[int, int]
"""Height and width of an image's grid of tokens."""


@final
@dataclass(frozen=True)
class Experiment:
    """What a recipe comes to: the data's shape and classes, the grid, the model's sizes."""

    recipe: Recipe
    images: ImageInfo
    splits: tuple[Split, ...]
    grid: Grid
    codebook_size: int
    config: ModelConfig
    schedule: PermutationSchedule
    """The recipe's, or its model family's own."""

    @cached_property
    def order_L(self) -> NDArray[np.int64]:
        """The raster index visited at each step."""
        return self.recipe.scan_order.order(*self.grid)

    @property
    def costs(self) -> ModelCosts:
        """What the model takes."""
        return self.recipe.model.costs(self.config)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.images.height, self.images.width, self.images.channels

    @property
    def held_out_split(self) -> Split:
        """The test images, or the training images of a dataset that has no others."""
        return "test" if "test" in self.splits else "train"

    @cached_property
    def sample_classes(self) -> tuple[int, ...]:
        """The labels of the classes to sample; empty where the recipe does not sample."""
        sample = self.recipe.sample
        if sample is None:
            return ()
        return tuple(range(self.images.num_classes)) if sample.classes is None else sample.classes

    def with_recipe(self, recipe: Recipe) -> Experiment:
        """The same resolution of a recipe that differs in nothing that decides it (other sampling settings, another scan order)."""
        recipe.scan_order.check_grid(*self.grid)
        return replace(self, recipe=recipe)


def resolve(recipe: Recipe, images: ImageInfo | None = None) -> Experiment:
    """Resolves a recipe.

    Args:
        recipe: a valid recipe.
        images: size and classes of its images, where they are known without the data; the dataset is asked where None.

    Raises:
        DatasetError: size and classes of the images cannot be known without the data.
        GridError: tokenizer and images, or scan order and grid, do not go together.
        RecipeError: samples of a class that the dataset does not have.
    """
    images = recipe.dataset.info() if images is None else images
    grid = recipe.tokenizer.grid(images)
    recipe.scan_order.check_grid(*grid)
    codebook_size = recipe.tokenizer.codebook_size()
    experiment = Experiment(
        recipe=recipe,
        images=images,
        splits=recipe.dataset.splits(),
        grid=grid,
        codebook_size=codebook_size,
        config=recipe.model.config(grid=grid, codebook_size=codebook_size, num_classes=images.num_classes),
        schedule=recipe.permutation_schedule or recipe.model.default_schedule(),
    )
    unknown = [label for label in experiment.sample_classes if label >= images.num_classes]
    if unknown:
        raise RecipeError(
            f"sample.classes: there is no class {unknown[0]}; dataset {recipe.dataset.name!r} has classes 0 to "
            f"{images.num_classes - 1}"
        )
    return experiment
