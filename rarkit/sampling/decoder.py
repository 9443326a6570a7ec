"""What a decoder does: guided logits, step by step.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from rarkit.models.rar.transformer import OrderedTransformer
from rarkit.models.rar.decoding.prepared import Prepared


class Decoder(ABC):
    """One batch on its way along a scan order. Made anew for each batch; steps are asked for in turn."""

    @abstractmethod
    def __init__(self, model: OrderedTransformer | Prepared, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> None:
        """Args:
        model: in eval mode.
        labels_B: (B,) int64 in [0, C), on the model's device.
        order_L: (L,) int64, the raster index visited at each step, on the model's device.
        scales: the guidance scale of each of the L steps.
        """

    @abstractmethod
    def logits(self, step: int, previous_B: Tensor | None) -> Tensor:
        """Guided logits of the token visited at ``step``: (B, V) float32, before temperature.

        Args:
            step: 0, then 1, … L − 1.
            previous_B: (B,) int64, the tokens chosen at the step before; None at step 0.
        """


def guide(conditional_BV: Tensor, unconditional_BV: Tensor, scale: float) -> Tensor:
    """uncond + s · (cond − uncond)."""
    return unconditional_BV + scale * (conditional_BV - unconditional_BV)


def guided_steps(scales: Sequence[float]) -> int:
    """How many steps need the unconditional branch: up to the last whose scale is not 1 (its cache must be whole till then)."""
    return max((step + 1 for step, scale in enumerate(scales) if scale != 1.0), default=0)
