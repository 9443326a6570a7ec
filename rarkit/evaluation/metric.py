"""What a metric is, and what it may look at.

Shape letters: N images, F features, S spatial features, K classes, L tokens of an image, H, W, C height, width, channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import FewImagesError
from rarkit.evaluation.intervals import FEWEST, TOO_FEW, Bounds, halves_interval
from rarkit.evaluation.record import MetricRecord
from rarkit.features.base import FeatureExtractor
from rarkit.images import Split
from rarkit.randomness import derived_seed

Measured = TypeVar("Measured")
Arrays = tuple[NDArray[Any], ...]
TRAINING_IMAGES, TEST_IMAGES, RECONSTRUCTIONS = "training images", "real test images", "reconstructions"
"""Yardsticks, by the names that readers know them by."""
ImageSet = Mapping[str, NDArray[Any]]
"""A set of images as the feature extractor sees them: arrays by name, each of which may be read from the store when looked up.

``features`` (N, F) float32. ``logits`` (N, K) and ``spatial`` (N, S), float32, where the extractor gives them. ``labels`` (N,)
int64, except of a published reference batch. Real images may come with statistics of many more, or as statistics alone:
``features_mean`` (F,) and ``features_covariance`` (F, F), float64, and the same of ``spatial``.
"""


@final
@dataclass(frozen=True)
class TokenSet:
    """Images as tokens: ``tokens_NL`` int64, raster grids of codes; ``labels_N`` int64."""

    tokens_NL: NDArray[np.int64]
    labels_N: NDArray[np.int64]


@final
@dataclass(frozen=True)
class TokenizedData:
    """The dataset's images as tokens: what model and tokenizer are measured on, apart from samples."""

    train: TokenSet
    held_out: TokenSet
    held_out_split: Split
    """``"train"`` where the dataset has no other images."""
    codebook_size: int
    decibels_N: NDArray[np.float64]
    """PSNR of each held-out image that is a yardstick, after encoding and decoding; infinite where nothing is lost."""
    similarities_N: NDArray[np.float64]
    """SSIM of the same."""
    nats_per_token: Callable[[TokenSet], NDArray[np.float64]]
    """The model's cross-entropy along the scan order, the mean over each image's tokens: (N,). The first call loads the model."""

    @property
    def held_out_name(self) -> str:
        """For explanations: which images ``held_out`` are."""
        return "held-out images" if self.held_out_split == "test" else "training images (this dataset has no held-out split)"


@final
@dataclass(frozen=True)
class Evaluation:
    """All that a metric may look at, and how intervals are estimated."""

    samples: ImageSet
    real: ImageSet
    yardsticks: Mapping[str, ImageSet]
    """Other sets to measure beside the samples, by the names that readers know them by; all have labels."""
    extractor: FeatureExtractor
    tokenized: TokenizedData | None
    """None where the recipe asks for no yardsticks."""
    seed: int
    resamplings: int
    """Halves of the samples that are measured for each interval; 0 for no intervals."""

    @property
    def space(self) -> str:
        """For explanations: in which features, and against which images, samples are measured."""
        against = "the training images" if self.extractor.reference_batch() is None else "the reference batch"
        return f"in the features of {self.extractor.name!r}, against {against}"

    def compare(
        self,
        name: str,
        metric: Callable[..., float],
        arrays_of: Callable[[ImageSet], Arrays],
        *,
        explanation: str,
        better: Literal["higher", "lower", ""] = "",
        interval: Callable[..., Bounds] | None = None,
        counting: tuple[Callable[..., float], str] | None = None,
        per_class: int = 2,
        lowest: float = -math.inf,
    ) -> MetricRecord:
        """A metric of the samples with its interval, and of each yardstick.

        Args:
            name: of the number.
            metric: takes the arrays of one set and gives its number.
            arrays_of: what the metric takes of a set: arrays of N rows, one for each image.
            explanation: what the number means, in a sentence.
            better: which direction is better.
            interval: takes the arrays and gives the interval; by default random halves of the samples do (``halves_interval``).
            counting: takes the arrays and gives the number of rows that count (``rows_that_count``); and what is the matter where
                they are too few for an interval.
            per_class: how many samples a class must have at least for that interval.
            lowest: the least value that the metric can have.
        """
        own = arrays_of(self.samples)
        low, high = None, None
        reason = "" if counting is None or counting[0](*own) >= FEWEST else counting[1]
        if not self.resamplings or reason:
            pass
        elif interval is not None:
            low, high = interval(*own)
        else:
            low, high = halves_interval(
                metric,
                own,
                self.samples["labels"],
                seed=derived_seed(self.seed, "intervals"),
                splits=-(-self.resamplings // 2),
                per_class=per_class,
                lowest=lowest,
            )
        return MetricRecord(
            name,
            metric(*own),
            low,
            high,
            no_interval="" if low is not None or not self.resamplings else reason or TOO_FEW,
            better=better,
            explanation=explanation,
            yardsticks=of_yardsticks(self.yardsticks, lambda images: metric(*arrays_of(images))),
        )


def of_yardsticks(yardsticks: Mapping[str, ImageSet], measure: Callable[[ImageSet], Measured]) -> dict[str, Measured]:
    """What ``measure`` gives for each yardstick, without those that have too few images for it."""
    measured = {}
    for name, images in yardsticks.items():
        with suppress(FewImagesError):
            measured[name] = measure(images)
    return measured


class Metric(ABC):
    """Subclasses are final, one a file with its mathematics, listed in ``rarkit.evaluation.metrics``."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the same images begin to give other numbers."""

    @abstractmethod
    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        """Its numbers; empty where it does not apply.

        Raises:
            FewImagesError: there are too few samples or real images.
            UserError: features are not finite.
        """

    def lacking(self, evaluation: Evaluation) -> list[str]:
        """What is left out because the reference batch does not have it, in a sentence each."""
        return []
