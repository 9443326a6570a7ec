"""Target-aware positions (RAR, section 3.3), for RAR and for anybody else's transformer.

Shape letters: B batch, L tokens of an image, P prefix entries, S = P + L − 1 entries of the sequence (the last token predicts
nothing), R rows of a table, D width.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rarkit.registry.inputs import check_tensor, whole

DEVIATION = 0.02
"""Standard deviation of initial positions, as in the released training."""


def target_aware_positions(orders_BL: Tensor, own_RD: Tensor, target_RD: Tensor | None, prefix: int) -> Tensor:
    """The entry's own position plus, if target-aware, the next position to predict.

    Args:
        orders_BL: (B, L) or (L,) int64, the raster index visited at each step.
        own_RD: the positions of the prefix entries, then of the cells in raster order: at least P + L rows.
        target_RD: the same for the cell to be predicted next; None for plain positions.
        prefix: P, the entries before the first token, at least 1. Only the last of them predicts a token.

    Returns:
        (B, S, D), or (S, D) for one order.
    """
    prefix_BP = torch.arange(prefix, device=orders_BL.device).expand(*orders_BL.shape[:-1], prefix)
    places_BS = torch.cat([prefix_BP, orders_BL[..., :-1] + prefix], dim=-1)
    own_BSD = functional.embedding(places_BS, own_RD)
    if target_RD is None:
        return own_BSD
    target_BLD = functional.embedding(orders_BL + prefix, target_RD)
    return own_BSD + functional.pad(target_BLD, (0, 0, prefix - 1, 0))


@final
class TargetAwarePositions(nn.Module):
    """Learned positions for a transformer that reads image tokens in any order: each entry knows which cell it is to predict.

    Add what it returns to the embeddings of the sequence: P prefix entries, then the tokens in visiting order without the last.
    Entry P − 1 + t predicts the token visited at step t.
    """

    def __init__(self, seq_len: int, width: int, *, prefix: int = 1) -> None:
        """New weights on torch's default device, drawn from torch's generator: normal with σ = 0.02.

        Args:
            seq_len: L, tokens per image.
            width: D.
            prefix: P, entries before the first token, such as the class; at least 1.

        Raises:
            UserError: an argument is not a whole number from 1.
        """
        super().__init__()
        self.seq_len, self.prefix = whole("seq_len", seq_len, 1), whole("prefix", prefix, 1)
        self.pos_embed = nn.Parameter(torch.empty(prefix + seq_len, whole("width", width, 1)))
        self.target_aware_pos_embed = nn.Parameter(torch.empty(prefix + seq_len, width))
        for table in self.parameters():
            nn.init.normal_(table, std=DEVIATION)

    def forward(self, orders_BL: Tensor) -> Tensor:
        """The positions of the S entries: (B, S, D), or (S, D) for one order.

        Args:
            orders_BL: (B, L) or (L,) int64, the raster index visited at each step, as ``rarkit.training.draw_orders`` returns it.

        Raises:
            UserError: the orders have another shape or dtype. That each cell is visited once is not checked.
        """
        shape = (self.seq_len,) if orders_BL.ndim == 1 else ("B", self.seq_len)
        check_tensor("TargetAwarePositions", "orders_BL", orders_BL, "int64", shape)
        return target_aware_positions(orders_BL, self.pos_embed, self.target_aware_pos_embed, self.prefix)
