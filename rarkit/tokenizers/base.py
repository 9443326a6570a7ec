"""Tokenizers: images to grids of codes, and back."""

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
"""What ``fit`` learned: arrays by name. Kept in the store, handed to ``build``."""


class TokenizerModel(ABC):
    """A tokenizer ready to work on one device. Works on any batch size; the caller bounds it."""

    @abstractmethod
    def encode(self, images_BHWC: Tensor) -> Tensor:
        """uint8 images (B, H, W, C) to codes (B, grid height, grid width), int64 in [0, codebook_size)."""

    @abstractmethod
    def decode(self, codes_BHW: Tensor) -> Tensor:
        """Codes (B, grid height, grid width), int64, to uint8 images (B, H, W, C)."""


class Tokenizer(Component):
    """Turns an image into a grid of codes from a codebook and back. Light until ``build``, which imports torch."""

    kind: ClassVar[str] = "tokenizers"
    learns: ClassVar[bool] = False
    """Whether ``fit`` has to be called before ``build``; then the pipeline has a ``fit`` stage."""

    @abstractmethod
    def codebook_size(self) -> int:
        """V: codes are in [0, V)."""

    @abstractmethod
    def grid(self, info: ImageInfo) -> tuple[int, int]:
        """Height and width of the grid of codes for such images.

        Raises:
            GridError: the images do not divide into whole tokens, or have the wrong number of channels.
        """

    def fit(self, reader: ImageReader, seed: int) -> LearnedState:
        """Learns from training images; only called where ``learns`` is true."""
        raise TypeError(f"tokenizer {self.name!r} has nothing to learn: learns is False")

    @abstractmethod
    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        """The tokenizer, ready to work.

        Args:
            state: what ``fit`` returned; empty where ``learns`` is false.
            device: a torch device string.
        """
