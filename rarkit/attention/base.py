"""Attention backends: one interface, interchangeable kernels.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, final

from rarkit.registry.component import Component

if TYPE_CHECKING:
    from torch import Tensor


@final
class Dropout(NamedTuple):
    """Dropout of attention weights in one layer of one training step, and where its masks come from."""

    probability: float
    """With which an attention weight is zeroed; the others are scaled up by 1 / (1 − probability)."""
    seeds_B: Tensor
    """(B,) int64: a seed for each sample, a function of the run's seed, the step and the sample's index."""
    layer: int
    """From 0; each layer draws masks of its own."""


class AttentionFunction(Protocol):
    """softmax(q kᵀ / √K) v, optionally causal."""

    def __call__(self, q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None) -> Tensor:
        """Returns (B, N, S, K) in the dtype of q.

        Args:
            causal: query s sees keys 0 … s; then S equals T.
            dropout: which attention weights to drop; None outside training.
        """
        ...


class AttentionBackend(Component):
    """Chooses the attention kernel. What a recipe asks for is what runs: no silent fallback."""

    kind: ClassVar[str] = "attention_backends"
    has_dropout: ClassVar[bool] = True
    """Whether the kernel can drop attention weights in training; where it cannot, planning refuses ``attention_dropout``."""
    has_seeded_dropout: ClassVar[bool] = False
    """Whether a sample's mask is a function of its seed and the layer alone.

    If not, the kernel draws from torch's global generator, which training seeds at each step: masks then depend on how the batch
    is cut into micro-batches, and that enters the fingerprint."""
    keeps_weights: ClassVar[bool] = False
    """Whether all S × T attention weights stay in memory for the backward pass; planning counts them."""

    @abstractmethod
    def build(self) -> AttentionFunction:
        """The kernel; imports torch (and the backend's own library)."""
