"""Decoding without a KV cache: a full forward pass at every step. The reference for the model families' own decoders.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from rarkit.sampling.decoder import Decodable, Decoder, guide


@final
class PlainDecoder(Decoder):
    """Runs the model's ``forward`` on the whole grid at every step, once with the class and once without."""

    def __init__(self, model: Decodable, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> None:
        self.network = model.network
        self.labels_B, self.order_L, self.scales = labels_B, order_L, scales
        # The contents of cells not yet visited have no effect: attention is causal along the order.
        self.tokens_BL = torch.zeros(len(labels_B), len(order_L), dtype=torch.int64, device=labels_B.device)

    def logits(self, step: int, previous_B: Tensor | None) -> Tensor:
        if previous_B is not None:
            self.tokens_BL[:, self.order_L[step - 1]] = previous_B
        none_dropped_B = torch.zeros_like(self.labels_B, dtype=torch.bool)
        conditional_BV, unconditional_BV = (
            self.network(self.tokens_BL, self.labels_B, self.order_L, dropped_B=dropped_B)[:, step].float()
            for dropped_B in (none_dropped_B, ~none_dropped_B)
        )
        return guide(conditional_BV, unconditional_BV, self.scales[step])
