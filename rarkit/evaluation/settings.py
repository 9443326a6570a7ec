"""The recipe's ``[evaluate]`` table. Imports no torch."""

from __future__ import annotations

from abc import ABC
from typing import Annotated

from pydantic import Field, SerializeAsAny

from rarkit.features.base import FeatureExtractor
from rarkit.features.classifier import Classifier
from rarkit.registry.bounds import Batch
from rarkit.registry.component import NotInFingerprint, Settings


class EvaluateSettings(Settings, ABC):
    """``[evaluate]``: how samples are compared with real images."""

    features: SerializeAsAny[FeatureExtractor] = Classifier()
    """Feature extractor; a table with ``name``."""
    yardsticks: bool = True
    """Measure held-out images, reconstructions and uniform tokens too, and the model's bits per token; show the training images
    nearest to samples and to held-out images.

    Yardsticks need the dataset's images. Without them, an extractor with its own reference needs no data."""
    bootstrap: Annotated[int, Field(ge=0, le=10**5)] = 100
    """How many random halves of the samples are measured for each interval (5 % to 95 %); 0 for no intervals."""
    batch_size: Annotated[Batch, NotInFingerprint(tolerance=1e-4)] = 256
    """Images per forward pass of the feature extractor."""
