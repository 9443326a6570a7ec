"""What an attention backend promises.

Shape letters: B batch, N heads, S and T query and key length, K head width.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import pytest

from rarkit.attention.base import AttentionBackend
from rarkit.testing.part_suite import PartSuite

if TYPE_CHECKING:
    from torch import Tensor


class AttentionBackendSuite(PartSuite, ABC):
    """Set ``parts`` to instances; ``device`` and ``tolerance`` (largest absolute error in float32) where they differ."""

    parts: ClassVar[Sequence[AttentionBackend]]
    device: ClassVar[str] = "cpu"
    tolerance: ClassVar[float] = 1e-5

    @pytest.mark.parametrize(("queries", "keys", "causal"), [(9, 9, True), (9, 9, False), (1, 7, False), (1, 1, True)])
    def test_it_is_softmax_attention(self, queries: int, keys: int, causal: bool) -> None:
        import torch

        for part in self.parts:
            generator = torch.Generator().manual_seed(queries + keys)
            q, k, v = (torch.randn(2, 3, length, 16, generator=generator) for length in (queries, keys, keys))
            found = part.build()(q.to(self.device), k.to(self.device), v.to(self.device), causal=causal)
            assert found.dtype == q.dtype
            assert (found.cpu() - _reference(q, k, v, causal)).abs().max() <= self.tolerance, f"{part!r}"

    def test_the_future_is_unseen(self) -> None:
        import torch

        for part in self.parts:
            generator = torch.Generator().manual_seed(0)
            q, k, v = (torch.randn(1, 2, 8, 16, generator=generator).to(self.device) for _ in range(3))
            before = part.build()(q, k, v, causal=True)
            k[:, :, 5:], v[:, :, 5:] = 100.0, -100.0
            after = part.build()(q, k, v, causal=True)
            assert torch.equal(before[:, :, :5], after[:, :, :5]), f"{part!r} looks ahead"


def _reference(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, causal: bool) -> Tensor:
    import torch

    q, k, v = (tensor.double() for tensor in (q_BNSK, k_BNTK, v_BNTK))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v
