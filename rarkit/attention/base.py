"""Attention backends: one interface, interchangeable kernels.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from rarkit.registry.component import Component

if TYPE_CHECKING:
    from torch import Tensor


class AttentionFunction(Protocol):
    """softmax(q kᵀ / √K) v, optionally causal."""

    def __call__(self, q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: float = 0.0) -> Tensor:
        """Returns (B, N, S, K) in the dtype of q.

        Args:
            causal: query s sees keys 0 … s; then S equals T.
            dropout: probability with which an attention weight is zeroed (the others are scaled up); 0 outside training.
        """
        ...


class AttentionBackend(Component):
    """Chooses the attention kernel. What a recipe asks for is what runs: no silent fallback."""

    kind: ClassVar[str] = "attention_backends"
    has_dropout: ClassVar[bool] = True
    """Whether the kernel can drop attention weights in training; where it cannot, planning refuses ``attention_dropout``."""
    keeps_weights: ClassVar[bool] = False
    """Whether all S × T attention weights stay in memory for the backward pass; planning counts them."""

    @abstractmethod
    def build(self) -> AttentionFunction:
        """The kernel; imports torch (and the backend's own library)."""
