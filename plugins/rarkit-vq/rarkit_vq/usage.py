"""How many codes are in use while a tokenizer is trained.

Shape letters: N samples of a step, M tokens of a sample, V codebook size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

USED, PERPLEXITY = "used_codes", "perplexity"
EACH = 8
"""Tokens that are looked back on, for each code."""


def window(codes: int, tokens: int) -> int:
    """The steps that are looked back on, where each step has so many tokens: in fewer, many codes cannot have been seen."""
    return max(1, -(-EACH * codes // tokens))


@final
class Usage(nn.Module):
    """When each code was last seen, in buffers, so that a training that goes on knows it too."""

    NAME: ClassVar[str] = "usage"
    """Under which a network has it."""
    last_seen_V: Tensor
    share_V: Tensor

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("last_seen_V", torch.full((codes,), -(2**40)))
        self.register_buffer("share_V", torch.full((codes,), 1 / codes))

    def count(self, step: int, codes_NM: Tensor) -> Mapping[str, Tensor]:
        """Takes the codes of a step; returns the number of codes that were seen in the last steps, and the perplexity of their
        distribution: as many codes, used equally, would be as hard to guess."""
        tokens, size = codes_NM.numel(), len(self.share_V)
        steps = window(size, tokens)
        # torch.bincount would wait for a GPU.
        counts_V = torch.zeros_like(self.share_V).scatter_add_(0, codes_NM.flatten(), self.share_V.new_ones(()).expand(tokens))
        self.last_seen_V.masked_fill_(counts_V > 0, step)
        self.share_V.lerp_(counts_V / tokens, 1 / min(steps, step + 1))
        entropy = torch.special.entr(self.share_V).sum()
        return {USED: (self.last_seen_V > step - steps).sum().float(), PERPLEXITY: entropy.exp()}
