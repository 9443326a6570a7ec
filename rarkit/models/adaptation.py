"""Weights of one model as the start of another, which may have other classes and another grid. Imports no torch.

Shape letters: R rows of a table, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple, final

from rarkit.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int]
"""Height and width."""


@final
@dataclass(frozen=True)
class GivenWeights:
    """Weights that a training starts from, with what is known of the model that had them."""

    place: str
    """What the recipe calls them, for messages."""
    tensors: Mapping[str, Tensor]
    config: str | None = None
    """Its configuration, as JSON; None if the file does not have it."""
    grid: Grid | None = None
    """Height and width of its token grid; None if unknown."""
    same_classes: bool | None = None
    """Whether it has the classes of the new model, in their order; None if unknown."""

    def grid_of(self, cells: int, new: Grid) -> Grid:
        """The grid of its tokens: that of the new model or a square one, if it is unknown.

        Raises:
            WeightsError: its number of cells is not that of its tokens, or is unknown and no square.
        """
        if self.grid is not None:
            if self.grid[0] * self.grid[1] != cells:
                raise WeightsError(
                    f"{self.place} is damaged: it has {cells:,} positions for a grid of {shown(self.grid)}. Choose other weights."
                )
            return self.grid
        if new[0] * new[1] == cells:
            return new
        side = isqrt(cells)
        if side * side != cells:
            raise WeightsError(
                f"{self.place} has {cells:,} tokens per image, and does not say in which grid. Name the folder of the run that "
                "trained it, or a bundle of it."
            )
        return side, side


@final
class Adapted(NamedTuple):
    """Weights that fit the new model, and what was changed: a sentence without a full stop each."""

    tensors: dict[str, Tensor]
    changes: tuple[str, ...] = ()


def with_classes(given: GivenWeights, table_RD: Tensor, new_RD: Tensor, first: int) -> tuple[Tensor, tuple[str, ...]]:
    """An embedding table for the classes of the new model, and what was changed.

    Args:
        given: the weights that the table is of.
        table_RD: rows of codes, then of the classes, then of "no class".
        new_RD: the same of the new model, as it was initialised.
        first: the row of the first class, the same in both.
    """
    before, now = (len(rows) - first - 1 for rows in (table_RD, new_RD))
    if before < 1 or table_RD.shape[1:] != new_RD.shape[1:]:
        return table_RD, ()  # of another model altogether
    if before == now and given.same_classes is not False:
        unknown = f"{given.place} does not name its {before:,} classes: they are taken for those of the dataset"
        return table_RD, () if given.same_classes else (unknown,)
    adapted_RD = new_RD.clone()
    adapted_RD[:first], adapted_RD[-1] = table_RD[:first], table_RD[-1]
    return adapted_RD, (f"the {now:,} classes get new embeddings, because {given.place} has {before:,} other classes",)


def shown(grid: Grid) -> str:
    return "{} × {}".format(*grid)
