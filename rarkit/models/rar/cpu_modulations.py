"""A block's modulations by class, read by samples, and their gradients, written by samples.

The six of a block lie one after another, each (U, S, D): passes over slices of a tensor (U, S, 6·D) take twice as long where D is
small.

Shape letters: B batch, S sequence length, D width, U classes, P = 6 places (shift, scale and gate of the block's two halves); G
samples at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

AT_ONCE = 2**17
"""The most numbers (samples × S × D) that are treated at once, if a sample has no more: they stay in the cache."""


@final
class Table:
    """Modulations (P, U, S, D) and each sample's row (B,) of U; without rows, sample b has row b."""

    def __init__(self, table_PUSD: Tensor, row_B: Tensor | None, batch: int) -> None:
        self.table_PUSD, self.row_B = table_PUSD, row_B
        self._places = table_PUSD.unbind(0)
        at_once = max(1, AT_ONCE // table_PUSD[0, 0].numel())
        self.groups = [slice(first, min(first + at_once, batch)) for first in range(0, batch, at_once)]
        self._rows: list[int] | None = None
        # A single sample's row is read in place; those of several at once are copied together.
        if row_B is not None and at_once == 1:
            self._rows = row_B.tolist()

    @property
    def copies(self) -> bool:
        """Whether rows of several samples are copied together."""
        return self.row_B is not None and self._rows is None

    def rows(self, samples: slice) -> slice:
        """The rows of a group of samples, unless they are copied."""
        if self._rows is None:
            return samples
        return slice(self._rows[samples.start], self._rows[samples.start] + 1)

    def parts(self, *places: int) -> Iterator[tuple[slice, list[Tensor]]]:
        """Groups of samples, each with its modulations (G, S, D) at some of the six places."""
        for samples in self.groups:
            yield samples, [self._of(samples, place) for place in places]

    def _of(self, samples: slice, place: int) -> Tensor:
        if self.copies:
            assert self.row_B is not None
            return self._places[place].index_select(0, self.row_B[samples])
        return self._places[place][self.rows(samples)]


@final
class Gradients:
    """The gradients of a table, each part of which is written once by every sample."""

    def __init__(self, table: Table) -> None:
        self._table, self._written = table, set[tuple[int, int]]()
        self.table_PUSD = torch.zeros_like(table.table_PUSD) if table.row_B is not None else torch.empty_like(table.table_PUSD)
        self._places = self.table_PUSD.unbind(0)

    def add(self, samples: slice, place: int, gradient_GSD: Tensor, factor_GSD: Tensor | None = None) -> None:
        """Adds the gradient of some samples, or its product with a factor, to their rows at a place."""
        if self._table.copies:
            assert self._table.row_B is not None
            product_GSD = gradient_GSD if factor_GSD is None else gradient_GSD * factor_GSD
            self._places[place].index_add_(0, self._table.row_B[samples], product_GSD)
            return
        rows = self._table.rows(samples)
        target_GSD = self._places[place][rows]
        again = (rows.start, place) in self._written
        self._written.add((rows.start, place))
        if factor_GSD is None:
            target_GSD.add_(gradient_GSD) if again else target_GSD.copy_(gradient_GSD)
        elif again:
            target_GSD.addcmul_(gradient_GSD, factor_GSD)
        else:
            torch.mul(gradient_GSD, factor_GSD, out=target_GSD)
