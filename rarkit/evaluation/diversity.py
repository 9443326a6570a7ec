"""The spread within classes.

Shape letters: N and M images, F features.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import FewImagesError
from rarkit.evaluation.intervals import ALIKE, rows_that_count, squared_distances
from rarkit.evaluation.metric import Evaluation, Metric
from rarkit.evaluation.record import MetricRecord


@final
class Diversity(Metric):
    """``diversity``, where the classes of the real images are known."""

    name = "diversity"
    version = 3

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        real = evaluation.real
        if "labels" not in real:
            return []
        usual = float(squared_distances(real["features"], real["labels"]).mean())
        return [
            evaluation.compare(
                "diversity",
                partial(diversity, real["features"], real["labels"]),
                lambda images: (images["features"], images["labels"]),
                counting=(lambda *fake: rows_that_count(squared_distances(*fake), usual), ALIKE),
                per_class=4,
                lowest=0.0,
                explanation=f"How far images of one class lie apart, real ones at 1, {evaluation.space}.",
            )
        ]


def diversity(
    real_NF: NDArray[np.floating[Any]],
    real_labels_N: NDArray[np.integer[Any]],
    fake_MF: NDArray[np.floating[Any]],
    fake_labels_M: NDArray[np.integer[Any]],
) -> float:
    """How far images of one class lie apart, relative to real ones: 1 as far, 0 all alike, above 1 farther.

    For each class the root of the mean squared Euclidean distance over all pairs of its images; fake over real; then the mean over
    those classes of which either set has two images or more, and the real ones differ. The estimate of the squared distance is
    unbiased, so sets of unequal size may be compared. It knows nothing of quality: noise is diverse.

    Raises:
        FewImagesError: no class can be compared.
    """
    ratios = []
    for label in np.unique(real_labels_N):
        real = _squared_spread(real_NF[real_labels_N == label])
        fake = _squared_spread(fake_MF[fake_labels_M == label])
        if real is not None and fake is not None and real > 0:
            ratios.append(math.sqrt(fake / real))
    if not ratios:
        raise FewImagesError("no class has two images or more, real and generated, that differ. Evaluate more images.")
    return float(np.mean(ratios))


def _squared_spread(features_NF: NDArray[np.floating[Any]]) -> float | None:
    """The mean of ‖x − y‖² over pairs, which is twice the trace of the covariance; None for fewer than two rows."""
    if len(features_NF) < 2:
        return None
    return 2 * float(np.asarray(features_NF, dtype=np.float64).var(axis=0, ddof=1).sum())
