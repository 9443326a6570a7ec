"""The contract between ``generate`` and what it samples from; model families fulfil it.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor, nn


class Decoder(ABC):
    """One batch on its way along a scan order. Made anew for each batch; steps are asked for in turn."""

    @abstractmethod
    def logits(self, step: int, previous_B: Tensor | None) -> Tensor:
        """Guided logits of the token visited at ``step``: (B, V) float32, before temperature.

        Args:
            step: 0, then 1, … L − 1.
            previous_B: (B,) int64, the tokens chosen at the step before; None at step 0.
        """


class Sizes(Protocol):
    """The sizes of a model that sampling has to know."""

    @property
    def seq_len(self) -> int:
        """L: tokens of an image."""

    @property
    def codebook_size(self) -> int:
        """V: how many codes a token can take."""

    @property
    def num_classes(self) -> int:
        """C: classes are 0 … C − 1."""


class Decodable(ABC):
    """What ``generate`` samples from: a model, or what its ``prepare`` returned."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module with the weights: its device is where sampling happens, and it is in eval mode meanwhile.

        Its ``forward`` is that of ``rarkit.models.image_model.ImageModel``."""

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """The model's sizes."""

    @abstractmethod
    def decoder(self, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> Decoder:
        """Begins a batch.

        Args:
            labels_B: (B,) int64 in [0, C), on the model's device.
            order_L: (L,) int64, the raster index visited at each step, on the model's device.
            scales: the guidance scale of each of the L steps.
        """


DecoderFactory = Callable[[Decodable, Tensor, Tensor, Sequence[float]], Decoder]
"""Another way to decode than the model's own; takes the model and the arguments of ``Decodable.decoder``."""


def guide(conditional_BV: Tensor, unconditional_BV: Tensor, scale: float) -> Tensor:
    """uncond + s · (cond − uncond)."""
    return unconditional_BV + scale * (conditional_BV - unconditional_BV)


def guided_steps(scales: Sequence[float]) -> int:
    """How many steps need the unconditional branch: up to the last whose scale is not 1 (its cache must be whole till then)."""
    return max((step + 1 for step, scale in enumerate(scales) if scale != 1.0), default=0)
