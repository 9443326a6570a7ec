"""The AdaLN modulations, a third of RAR's weights: they depend only on class and step, so they are computed without the tokens.

Shape letters: R rows, U distinct classes, E entries of the sequence, D width; M modulations: 6·D for a block, 2·D for
the final norm, or the total.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from rarkit.models.rar.decoding.projections import compiled_projection, product, rows_dtype
from rarkit.models.rar.decoding.weights import DecodingWeights
from rarkit.models.rar.layers import Block, FinalNorm
from rarkit.models.rar.sampling_costs import entries_at_once


@final
class Modulations:
    """A table of the modulations of a batch's distinct classes, computed for many entries at once in large matrix products.

    The norms' own weights are folded in: a scale is stored as ``weight · (1 + scale)``, a shift as
    ``bias · (1 + scale) + shift``. The table never moves in memory. For plain norms it has one row for all classes and entries:
    the norms' own weights, and gates of 1.
    """

    def __init__(self, weights: DecodingWeights, classes: int) -> None:
        """Allocates the table for at most ``classes`` distinct classes, including "no class"."""
        model = self.model = weights.model
        self.dtype, self.filled_dtype = weights.rows_dtype, rows_dtype(model.cls_token)
        self.kernels = weights.kernels
        config = model.config
        self.last = config.seq_len + 1
        if model.has_modulations:
            self.entries = entries_at_once(config, classes, model.cls_token.element_size())
        else:
            self.entries = classes = 1
        self.widths = [6 * config.hidden_size] * config.depth + [2 * config.hidden_size]
        self.table_EUM = model.cls_token.new_empty(self.entries, classes, sum(self.widths))

    def begin(self, class_ids_R: Tensor) -> None:
        """Starts a new batch; ``class_ids_R`` (R,) int64 are rows of the embedding table."""
        self.start = self.stop = 0
        if self.model.has_modulations:
            self.distinct_U, self.row_R = torch.unique(class_ids_R, return_inverse=True)
        else:
            self.row_R = torch.zeros_like(class_ids_R)

    def reach(self, entry: int) -> None:
        """Ensures that the table holds this entry. Entries must be requested in ascending order."""
        if entry < self.stop:
            return
        if not self.model.has_modulations:
            self.stop = self.last
            self._fill_with_norms()
            return
        self.start, self.stop = entry, min(entry + self.entries, self.last)
        activated_EUD = self.model.conditioning(self.distinct_U, self.start, self.stop).transpose(0, 1).to(self.filled_dtype)
        entries, classes = activated_EUD.shape[:2]
        *tables, final_EUM = self.table_EUM[:entries, :classes].split_with_sizes(self.widths, dim=-1)
        for block, table_EUM in zip(self.model.layers, tables, strict=True):
            # Bound to no name, which would keep it alive beside the next block's: each is as large as a block's table, or twice.
            table_EUM.copy_(_folded(self._modulations(block, activated_EUD), block))
        filled_EUM = self._modulations(self.model.adaln_before_head, activated_EUD)
        filled_EUM.chunk(2, dim=-1)[0].add_(1)
        final_EUM.copy_(filled_EUM)

    def slot(self, entry: int) -> int:
        """The index in the table of an entry for which ``reach`` was called."""
        return entry - self.start if self.model.has_modulations else 0

    def of(self, entry: int) -> Sequence[Tensor]:
        """An entry's modulations by class, (U, M) for each block and the final norm; ``row_R`` maps rows to classes."""
        return self.table_EUM[self.slot(entry)].to(self.dtype).split_with_sizes(self.widths, dim=-1)

    def at(self, table_UM: Tensor, row_R: Tensor) -> Sequence[Tensor]:
        """An entry's modulations by row, (R, M) for each block and the final norm, from the entry's part of the table."""
        return table_UM.index_select(0, row_R).to(self.dtype).split_with_sizes(self.widths, dim=-1)

    def _fill_with_norms(self) -> None:
        *tables, final_EUM = self.table_EUM.split_with_sizes(self.widths, dim=-1)
        for block, table_EUM in zip(self.model.layers, tables, strict=True):
            for (shift_EUD, scale_EUD, gate_EUD), norm in zip(
                (table_EUM.chunk(6, dim=-1)[:3], table_EUM.chunk(6, dim=-1)[3:]), (block.norm1, block.norm2), strict=True
            ):
                shift_EUD.copy_(norm.bias)
                scale_EUD.copy_(norm.weight)
                gate_EUD.fill_(1)
        scale_EUD, shift_EUD = final_EUM.chunk(2, dim=-1)
        scale_EUD.copy_(self.model.adaln_before_head.norm_final.weight)
        shift_EUD.copy_(self.model.adaln_before_head.norm_final.bias)

    def _modulations(self, layer: Block | FinalNorm, activated_EUD: Tensor) -> Tensor:
        linear, x_RD = cast(nn.Linear, layer.adaLN_modulation[1]), activated_EUD.flatten(0, 1)
        if self.kernels is not None and x_RD.dtype == torch.float32:
            modulations_RM = compiled_projection(self.kernels, linear)(x_RD)
        else:
            modulations_RM = product(linear, x_RD)
        return modulations_RM.view(*activated_EUD.shape[:2], -1)


def _folded(modulations_EUM: Tensor, block: Block) -> Tensor:
    shift1, scale1, _, shift2, scale2, _ = modulations_EUM.chunk(6, dim=-1)
    for shift_EUD, scale_EUD, norm in ((shift1, scale1, block.norm1), (shift2, scale2, block.norm2)):
        scale_EUD.add_(1)
        shift_EUD.addcmul_(scale_EUD, norm.bias)
        scale_EUD.mul_(norm.weight)
    return modulations_EUM
