"""Feature extractors: the spaces in which evaluation compares images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageInfo, ImageReader
from rarkit.registry.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.features.reference_batch import ReferenceBatch

LearnedState = Mapping[str, NDArray[np.generic]]
"""What ``fit`` learned: arrays by name."""


@final
@dataclass(frozen=True)
class Features:
    """What an extractor sees in a batch, all float32."""

    features_BF: Tensor
    logits_BC: Tensor | None = None
    """Class scores, where it is a classifier."""
    spatial_BS: Tensor | None = None
    """Features that keep where in the image something is, where it has them."""


class FeatureModel(ABC):
    """An extractor ready to work on one device."""

    @abstractmethod
    def __call__(self, images_BHWC: Tensor) -> Features:
        """Features of uint8 images (B, H, W, C). A row depends on its image alone, not on the batch."""


class FeatureExtractor(Component):
    """Turns images into vectors in which distributions are compared. Light until ``build``, which imports torch."""

    kind: ClassVar[str] = "feature_extractors"
    learns: ClassVar[bool] = False
    """Whether ``fit`` has to be called, on real training images, before ``build``."""
    knows_classes: ClassVar[bool] = True
    """Whether class scores are of the dataset's own classes; if not, they are used for the inception score alone."""

    def distance_names(self) -> dict[str, str]:
        """The names of Fréchet distances in ``features`` and ``spatial``.

        ``"fid"`` and ``"sfid"`` belong to the Inception network of the FID paper alone, with its published weights.
        """
        return {"features": "frechet_distance", "spatial": "spatial_frechet_distance"}

    def check_images(self, info: ImageInfo) -> None:
        """Raises GridError if the extractor does not take such images."""

    def fit(self, reader: ImageReader, seed: int) -> LearnedState:
        """Learns from real training images; only called where ``learns`` is true."""
        raise TypeError(f"feature extractor {self.name!r} has nothing to learn: learns is False")

    def reference_batch(self) -> ReferenceBatch | None:
        """The real images that a published protocol compares with; None for the dataset's own training images."""
        return None

    @abstractmethod
    def build(self, state: LearnedState, device: str) -> FeatureModel:
        """The extractor, ready to work; ``state`` is what ``fit`` returned, empty where ``learns`` is false."""
