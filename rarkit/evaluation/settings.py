"""The recipe's ``[evaluate]`` table. Imports no torch."""

from __future__ import annotations

from abc import ABC
from typing import Annotated

from pydantic import Field, PositiveInt, SerializeAsAny

from rarkit.features.base import FeatureExtractor
from rarkit.features.classifier import Classifier
from rarkit.registry.component import NotInFingerprint, Settings


class EvaluateSettings(Settings, ABC):
    """``[evaluate]``: in which features samples are compared with real images."""

    features: SerializeAsAny[FeatureExtractor] = Classifier()
    """The feature extractor; a table with ``name``."""
    yardsticks: bool = True
    """Whether held-out images, reconstructions and uniform tokens are measured too, and the model's bits per token on them.

    They need the dataset's images; without, and with an extractor that brings its own reference, no data is needed."""
    bootstrap: Annotated[int, Field(ge=0)] = 100
    """Resamplings behind each interval (5 % to 95 %); 0 for none."""
    batch_size: Annotated[PositiveInt, NotInFingerprint(tolerance=1e-4)] = 256
    """Images that go through the feature extractor at a time."""
