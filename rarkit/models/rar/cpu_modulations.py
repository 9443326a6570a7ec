"""A block's modulations by class, read by samples, and their gradients, written by samples.

Shape letters: B batch, S sequence length, D width, U classes, M = 6·D; G samples at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

AT_ONCE = 2**17
"""The most numbers (samples × S × D) that are treated at once, if a sample has no more: they stay in the cache."""
PARTS = 6


@final
class Table:
    """Modulations (U, S, 6·D) and each sample's row (B,) of them; without rows, sample b has row b."""

    def __init__(self, table_USM: Tensor, row_B: Tensor | None, batch: int) -> None:
        self.table_USM, self.row_B, self.batch = table_USM, row_B, batch
        self.width = table_USM.shape[2] // PARTS
        at_once = max(1, AT_ONCE // (table_USM.shape[1] * self.width))
        self.groups = [slice(first, min(first + at_once, batch)) for first in range(0, batch, at_once)]
        self.rows: list[int] | None = None
        self._gathered_BSM: Tensor | None = None
        if row_B is not None:
            # A single sample's row is read in place; of several at once, they are copied together.
            if at_once == 1:
                self.rows = row_B.tolist()
            else:
                self._gathered_BSM = table_USM.index_select(0, row_B)

    @property
    def gathers(self) -> bool:
        """Whether the samples' rows are copies."""
        return self._gathered_BSM is not None

    def parts(self, *places: int) -> Iterator[tuple[slice, list[Tensor]]]:
        """Groups of samples, each with its modulations (G, S, D) at some of the six places."""
        for samples in self.groups:
            yield samples, [self.of(self.table_USM, samples, place) for place in places]

    def of(self, table_USM: Tensor, samples: slice, place: int) -> Tensor:
        """The rows of a group of samples at one of the six places, as a view where there are no copies."""
        if self._gathered_BSM is not None:
            table_USM = self._gathered_BSM
        elif self.rows is not None:
            samples = slice(self.rows[samples.start], self.rows[samples.start] + 1)
        return table_USM[samples, :, place * self.width : (place + 1) * self.width]


@final
class Gradients:
    """The gradients of a table, each part of which is written once by every sample."""

    def __init__(self, table: Table) -> None:
        self._table, self._written = table, set[tuple[int, int]]()
        shape_USM = table.table_USM.shape
        rows = table.rows
        if table.gathers:
            self._out = table.table_USM.new_empty(table.batch, *shape_USM[1:])
        elif rows is None or len(set(rows)) == len(table.table_USM):
            self._out = torch.empty_like(table.table_USM)
        else:
            self._out = torch.zeros_like(table.table_USM)

    def add(self, samples: slice, place: int, gradient_GSD: Tensor, factor_GSD: Tensor | None = None) -> None:
        """Adds the gradient of some samples, or its product with a factor, to their rows at a place."""
        table = self._table
        row = samples.start if table.rows is None else table.rows[samples.start]
        rows = samples if table.rows is None else slice(row, row + 1)
        target_GSD = self._out[rows, :, place * table.width : (place + 1) * table.width]
        again = (row, place) in self._written
        self._written.add((row, place))
        if factor_GSD is None:
            target_GSD.add_(gradient_GSD) if again else target_GSD.copy_(gradient_GSD)
        elif again:
            target_GSD.addcmul_(gradient_GSD, factor_GSD)
        else:
            torch.mul(gradient_GSD, factor_GSD, out=target_GSD)

    def finished(self) -> Tensor:
        """The gradient of the table (U, S, 6·D)."""
        if not self._table.gathers:
            return self._out
        assert self._table.row_B is not None
        return torch.zeros_like(self._table.table_USM).index_add_(0, self._table.row_B, self._out)
