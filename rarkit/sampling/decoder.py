"""The contract between ``generate`` and the models it samples from; model families implement it.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor, nn


class Decoder(ABC):
    """Decodes one batch along a scan order. Create one per batch and call ``logits`` for each step in turn."""

    @abstractmethod
    def logits(self, step: int, previous_B: Tensor | None) -> Tensor:
        """Guided logits of the token visited at ``step``: (B, V) float32, before temperature.

        Args:
            step: 0, then 1, … L − 1.
            previous_B: (B,) int64, the tokens chosen at the previous step; None at step 0.
        """


class Sizes(Protocol):
    """The sizes of a model that sampling needs."""

    @property
    def seq_len(self) -> int:
        """L, tokens per image."""

    @property
    def codebook_size(self) -> int:
        """V, the number of codes."""

    @property
    def num_classes(self) -> int:
        """C, the number of classes; labels are 0 … C − 1."""


class Decodable(ABC):
    """What ``generate`` samples from: a model, or what its ``prepare`` returned."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module with the weights. Sampling runs on its device and switches it to eval mode for the duration.

        Its ``forward`` has the signature of ``rarkit.models.image_model.ImageModel``."""

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """The sizes of the model."""

    @abstractmethod
    def decoder(self, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> Decoder:
        """Creates the decoder of one batch.

        Args:
            labels_B: (B,) int64 in [0, C), on the model's device.
            order_L: (L,) int64, the raster index visited at each step, on the model's device.
            scales: the guidance scale at each of the L steps.
        """


DecoderFactory = Callable[[Decodable, Tensor, Tensor, Sequence[float]], Decoder]
"""Creates a decoder other than the model's own; takes the model and the arguments of ``Decodable.decoder``."""


def guide(conditional_BV: Tensor, unconditional_BV: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: uncond + s · (cond − uncond)."""
    return unconditional_BV + scale * (conditional_BV - unconditional_BV)


def guided_steps(scales: Sequence[float]) -> int:
    """The number of steps that run the unconditional branch: up to the last with a scale ≠ 1, so that its cache has no gaps."""
    return max((step + 1 for step, scale in enumerate(scales) if scale != 1.0), default=0)
