"""Tokenizers: from images to grids of codes, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageInfo, ImageReader
from rarkit.registry.component import Component

if TYPE_CHECKING:
    from torch import Tensor

LearnedState = Mapping[str, NDArray[np.generic]]
"""The arrays that ``fit`` learned, by name. They are kept in the store and passed to ``build``."""


class TokenizerModel(ABC):
    """A tokenizer on one device. Accepts any batch size; the caller bounds it."""

    @abstractmethod
    def encode(self, images_BHWC: Tensor) -> Tensor:
        """From uint8 images (B, H, W, C) to codes (B, grid height, grid width), int64 in [0, codebook_size)."""

    @abstractmethod
    def decode(self, codes_BHW: Tensor) -> Tensor:
        """From codes (B, grid height, grid width), int64, to uint8 images (B, H, W, C)."""


class Tokenizer(Component):
    """Turns images into grids of codes, and back. Only ``build`` imports torch."""

    kind: ClassVar[str] = "tokenizers"
    learns: ClassVar[bool] = False
    """Whether ``fit`` must be called before ``build``; if so, the pipeline has a ``fit`` stage."""

    @abstractmethod
    def codebook_size(self) -> int:
        """V, the number of codes; codes are in [0, V)."""

    @abstractmethod
    def grid(self, info: ImageInfo) -> tuple[int, int]:
        """Height and width of the grid of codes of these images.

        Raises:
            GridError: the images do not divide into whole tokens, or have the wrong number of channels.
        """

    def fit(self, reader: ImageReader, seed: int) -> LearnedState:
        """Learns from training images. Called only if ``learns`` is true."""
        raise TypeError(f"tokenizer {self.name!r} has nothing to learn: learns is False")

    @abstractmethod
    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        """Creates the tokenizer on a device.

        Args:
            state: what ``fit`` returned; empty if ``learns`` is false.
            device: a torch device string.
        """
