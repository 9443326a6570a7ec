"""RAR for a single scan order, with both positional tables merged into one: a plain autoregressive transformer.

Shape letters: B batch, M orders, L tokens of an image, S = L + 1 entries fed to the blocks, D width.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rarkit.attention.base import AttentionFunction
from rarkit.errors import WeightsError
from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.transformer import OrderedTransformer


@final
class MergedRAR(OrderedTransformer):
    """The result of ``RAR.merge_positions``. Its state dict has ``scan_pos_embed`` (1, S, D) in visiting order, and the order.

    Raises:
        WeightsError: from ``forward``, for any order but its own.
    """

    scan_pos_embed: nn.Parameter
    scan_order: Tensor

    def __init__(self, config: RARConfig, attention: AttentionFunction | None = None) -> None:
        """A model on torch's default device with uninitialised weights, to be loaded."""
        super().__init__(config, attention, {"scan_pos_embed": config.seq_len + 1})
        self.register_buffer("scan_order", torch.empty(config.seq_len, dtype=torch.int64))

    def positions(self, orders_BL: Tensor) -> Tensor:
        """See ``OrderedTransformer.positions``."""
        orders_ML = orders_BL.to(self.scan_order.device).reshape(-1, orders_BL.shape[-1])
        own = orders_ML.shape[-1] == len(self.scan_order)
        others_ML = orders_ML[(orders_ML != self.scan_order).any(-1)] if own else orders_ML
        if len(others_ML):
            raise WeightsError(
                f"this model's positions were merged for the scan order {_begin(self.scan_order)}, but the order here is "
                f"{_begin(others_ML[0])}. Use the model's scan order, or the model before merging."
            )
        return self.scan_pos_embed[0]


def _begin(order_L: Tensor) -> str:
    return ", ".join(str(cell) for cell in order_L[:8].tolist()) + (", …" if len(order_L) > 8 else "")
