"""Rotary positions in two dimensions: half of a head's pairs rotate with the cell's row, half with its column.

Shape letters: B batch, L tokens of an image, S entries of the sequence (the class, then x_1 … x_{L−1}; the last token
predicts nothing), N heads, K head width, F = K / 4 frequencies.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional

from rarkit.models.llama_ar.config import LlamaARConfig


@final
class Rotary(NamedTuple):
    """Cosines and sines of the rotation of queries and keys: float32, (S, K), or (B, S, K) if orders differ by sample."""

    cos: Tensor
    sin: Tensor

    def turn(self, x_BNSK: Tensor) -> Tensor:
        """Rotates queries or keys. Element i of a head is paired with element i + K / 2, as in transformers' Llama."""
        first_BNSK, second_BNSK = x_BNSK.chunk(2, dim=-1)
        halves_BNSK = torch.cat([-second_BNSK, first_BNSK], dim=-1)
        turned_BNSK = x_BNSK * self.cos.unsqueeze(-3) + halves_BNSK * self.sin.unsqueeze(-3)
        return turned_BNSK.to(x_BNSK.dtype)

    def at(self, entry: int) -> Rotary:
        """The rotation of one entry: (1, K)."""
        return Rotary(self.cos[..., entry : entry + 1, :], self.sin[..., entry : entry + 1, :])


def rotary(config: LlamaARConfig, orders_BL: Tensor) -> Rotary:
    """The rotation of each entry of a sequence, by the cell of its token.

    Rows and columns count from 1; the class has position (0, 0), outside the grid.

    Args:
        config: grid, head width and the base of the frequencies.
        orders_BL: (B, L) or (L,) int64; the raster index visited at each step.
    """
    half = config.head_size // 2
    frequency_F = config.rope_theta ** (-torch.arange(0, half, 2, device=orders_BL.device, dtype=torch.float32) / half)
    cells_BS = orders_BL[..., :-1]
    row_BS, column_BS = (functional.pad(place + 1, (1, 0)) for place in (cells_BS // config.grid[1], cells_BS % config.grid[1]))
    by_row_BSF, by_column_BSF = (place_BS[..., None] * frequency_F for place_BS in (row_BS, column_BS))
    angles_BSK = torch.cat([by_row_BSF, by_column_BSF] * 2, dim=-1)
    return Rotary(angles_BSK.cos(), angles_BSK.sin())
