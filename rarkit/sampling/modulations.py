"""The AdaLN modulations, a third of a RAR's weights: they depend on class and step alone, and are computed apart from the tokens.

Shape letters: R rows of the batch, U distinct classes, E entries of the sequence, D width; M modulations: 6·D of a block, 2·D of
the final norm.
"""

from __future__ import annotations

from typing import cast, final

import torch
from torch import Tensor, nn

from rarkit.models.layers import Block, FinalNorm
from rarkit.models.transformer import OrderedTransformer
from rarkit.sampling.costs import entries_at_once
from rarkit.sampling.projections import product


@final
class Modulations:
    """Tables for the distinct classes of a batch, computed for many entries at once in large matrix products.

    The norms' own weights are folded in: what stands for a scale is ``weight · (1 + scale)``, for a shift
    ``bias · (1 + scale) + shift``.
    """

    def __init__(self, model: OrderedTransformer, classes: int) -> None:
        """Tables for at most that many distinct classes, "no class" counted."""
        self.model = model
        config = model.config
        self.last = config.seq_len + 1
        self.entries = entries_at_once(config, classes, model.cls_token.element_size())
        self.tables_EUM: list[Tensor] = [
            model.cls_token.new_empty(self.entries, classes, width * config.hidden_size) for width in [6] * config.depth + [2]
        ]

    def begin(self, class_ids_R: Tensor) -> None:
        """A new batch: (R,) int64 rows of the embedding table."""
        self.distinct_U, self.row_R = torch.unique(class_ids_R, return_inverse=True)
        self.start = self.stop = 0

    def reach(self, entry: int) -> None:
        """Makes sure that the tables hold this entry. Entries are asked for in rising order."""
        if entry < self.stop:
            return
        self.start, self.stop = entry, min(entry + self.entries, self.last)
        activated_EUD = self.model.conditioning(self.distinct_U, self.start, self.stop).transpose(0, 1)
        entries, classes = activated_EUD.shape[:2]
        for block, table_EUM in zip(self.model.layers, self.tables_EUM, strict=False):
            filled_EUM = table_EUM[:entries, :classes].copy_(_modulations(block, activated_EUD))
            _fold(filled_EUM, block)
        final = self.model.adaln_before_head
        scale_EUD = self.tables_EUM[-1][:entries, :classes].copy_(_modulations(final, activated_EUD)).chunk(2, dim=-1)[0]
        scale_EUD.add_(1)

    def rows(self, layer: int, entry: int, rows: int) -> Tensor:
        """(R, M): the modulations of an entry within reach, for the first rows of the batch; ``layer`` −1 is the final norm."""
        table_UM = self.tables_EUM[layer][entry - self.start]
        return table_UM.index_select(0, self.row_R[:rows])


def _modulations(layer: Block | FinalNorm, activated_EUD: Tensor) -> Tensor:
    modulations_RM = product(cast(nn.Linear, layer.adaLN_modulation[1]), activated_EUD.flatten(0, 1))
    return modulations_RM.view(*activated_EUD.shape[:2], -1)


def _fold(modulations_EUM: Tensor, block: Block) -> None:
    shift1, scale1, _, shift2, scale2, _ = modulations_EUM.chunk(6, dim=-1)
    for shift_EUD, scale_EUD, norm in ((shift1, scale1, block.norm1), (shift2, scale2, block.norm2)):
        scale_EUD.add_(1)
        shift_EUD.addcmul_(scale_EUD, norm.bias)
        scale_EUD.mul_(norm.weight)
