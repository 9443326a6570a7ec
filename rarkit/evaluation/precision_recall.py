"""Precision and recall by nearest neighbours.

Shape letters: N real images, M generated ones, A and B rows of two sets, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import FewImagesError
from rarkit.evaluation.metric import Evaluation, Metric, of_yardsticks
from rarkit.evaluation.record import MetricRecord

NEIGHBOURS = 3
DISTANCES_AT_ONCE = 2**23
ROUNDING = 1e-12
"""A squared distance below this share of the squared norms is what rounding left of zero."""


@final
class PrecisionRecall(Metric):
    """``precision`` and ``recall``, where the real images are there."""

    name = "precision_recall"

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        if "features" not in evaluation.real:
            return []
        real_NF = evaluation.real["features"]
        own = precision_recall(real_NF, evaluation.samples["features"], NEIGHBOURS)
        yardsticks = of_yardsticks(evaluation.yardsticks, lambda images: precision_recall(real_NF, images["features"], NEIGHBOURS))
        about = f"({NEIGHBOURS} nearest neighbours, as ADM's evaluator defines it), {evaluation.space}."
        return [
            MetricRecord(
                "precision",
                own.precision,
                better="higher",
                explanation=f"Share of samples that lie among the real images {about}",
                yardsticks={name: overlap.precision for name, overlap in yardsticks.items()},
            ),
            MetricRecord(
                "recall",
                own.recall,
                better="higher",
                explanation=f"Share of real images that lie among the samples {about}",
                yardsticks={name: overlap.recall for name, overlap in yardsticks.items()},
            ),
        ]

    def lacking(self, evaluation: Evaluation) -> list[str]:
        if "features" in evaluation.real:
            return []
        return ["precision and recall are left out: the reference batch has statistics alone, and they need its images."]


@final
class Overlap(NamedTuple):
    """How far two sets of images overlap; both from 0 to 1, higher is better."""

    precision: float
    """The share of generated images that lie among real ones."""
    recall: float
    """The share of real images that lie among generated ones."""


def precision_recall(real_NF: NDArray[np.floating[Any]], fake_MF: NDArray[np.floating[Any]], k: int = NEIGHBOURS) -> Overlap:
    """Precision and recall of Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019, as the ADM evaluator has them.

    A set's manifold is the union of a ball around each of its images that just reaches the k-th nearest other image of the set.
    The ADM evaluator computes distances in half precision where they fit; here they are in double precision.

    Raises:
        FewImagesError: a set has no more than ``k`` images.
    """
    for name, count in (("real", len(real_NF)), ("generated", len(fake_MF))):
        if count <= k:
            raise FewImagesError(
                f"precision and recall with k = {k} need more than {k} {name} images, and there are {count}. Evaluate more images."
            )
    mean_F = np.asarray(real_NF, np.float64).mean(0)  # Distances from products are most accurate around the origin.
    real, fake = (np.asarray(features, np.float64) - mean_F for features in (real_NF, fake_MF))
    real_radii_N, fake_radii_M = _squared_radii(real, k), _squared_radii(fake, k)
    real_covered_N, fake_covered_M = np.zeros(len(real), dtype=bool), np.zeros(len(fake), dtype=bool)
    for rows, squared in _squared_distances(real, fake):
        fake_covered_M |= (squared <= real_radii_N[rows, None]).any(0)
        real_covered_N[rows] = (squared <= fake_radii_M).any(1)
    return Overlap(float(fake_covered_M.mean()), float(real_covered_N.mean()))


def _squared_radii(features_AF: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The squared distance of each row to the k-th nearest other row, (A,)."""
    radii = []
    for rows, squared in _squared_distances(features_AF, features_AF):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.start + len(squared))] = np.inf
        radii.append(np.partition(squared, k - 1, axis=1)[:, k - 1])
    return np.concatenate(radii)


def _squared_distances(a_AF: NDArray[np.float64], b_BF: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Squared Euclidean distances of some rows of ``a`` at a time to all of ``b``."""
    b_norms_B = (b_BF**2).sum(1)
    chunk = max(1, DISTANCES_AT_ONCE // len(b_BF))
    for start in range(0, len(a_AF), chunk):
        rows = slice(start, start + chunk)
        norms = (a_AF[rows] ** 2).sum(1)[:, None] + b_norms_B
        squared = norms - 2 * a_AF[rows] @ b_BF.T
        squared[squared <= ROUNDING * norms] = 0.0
        yield rows, squared
