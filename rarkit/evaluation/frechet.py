"""The Fréchet distance between two sets of features.

Shape letters: N and M rows of two sets, F features, R rows of a factor, min(N, F).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import FewImagesError, UserError
from rarkit.evaluation.intervals import ALIKE, rows_that_count, squared_distances
from rarkit.evaluation.metric import Evaluation, ImageSet, Metric
from rarkit.evaluation.record import MetricRecord


@final
class FrechetDistance(Metric):
    """``frechet_distance`` to the real images, in each space that the extractor sees them in."""

    name = "frechet_distance"
    version = 3

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        names = evaluation.extractor.distance_names()
        return [
            _distance_in(space, name, evaluation)
            for space, name in names.items()
            if space in evaluation.samples and _is_known(evaluation.real, space)
        ]

    def lacking(self, evaluation: Evaluation) -> list[str]:
        return [
            f"{name} is left out: the reference batch has neither images nor statistics of {space} features."
            for space, name in evaluation.extractor.distance_names().items()
            if space in evaluation.samples and not _is_known(evaluation.real, space)
        ]


def _distance_in(space: str, name: str, evaluation: Evaluation) -> MetricRecord:
    real, labels_M = _real_gaussian(evaluation.real, space), evaluation.samples["labels"]
    usual = float((real.factor_RF**2).sum())
    return evaluation.compare(
        name,
        lambda features_MF: frechet_between(real, gaussian(features_MF)),
        lambda images: (images[space],),
        better="lower",
        counting=(lambda features_MF: rows_that_count(squared_distances(features_MF, labels_M), usual), ALIKE),
        lowest=0.0,
        explanation=f"Fréchet distance between Gaussians fitted to samples and real images, {evaluation.space}. "
        "Biased upwards by few images: compare sets of equal size.",
    )


def _is_known(real: ImageSet, space: str) -> bool:
    return space in real or f"{space}_mean" in real


def _real_gaussian(real: ImageSet, space: str) -> Gaussian:
    """Fitted to the real images, or given with them, of many more than these."""
    if f"{space}_mean" in real:
        return gaussian_of(real[f"{space}_mean"], real[f"{space}_covariance"])
    return gaussian(real[space])


@final
@dataclass(frozen=True)
class Gaussian:
    """The normal distribution with a set's mean and covariance (divisor N − 1): ``factor_RF``ᵀ ``factor_RF`` is the covariance."""

    mean_F: NDArray[np.float64]
    factor_RF: NDArray[np.float64]


def gaussian(features_NF: NDArray[np.floating[Any]]) -> Gaussian:
    """The normal distribution with the mean and covariance of features (N, F).

    Raises:
        FewImagesError: fewer than two rows.
        UserError: features that are not finite.
    """
    count = len(features_NF)
    _check_count(count)
    features = np.asarray(features_NF, dtype=np.float64)
    if not np.isfinite(features).all():
        broken = int((~np.isfinite(features).all(1)).sum())
        raise UserError(f"features of {broken} of {count} images are not finite. Look at those images and at the extractor.")
    mean_F = features.mean(0)
    factor_RF: NDArray[np.float64] = np.linalg.qr((features - mean_F) / np.sqrt(count - 1)).R
    return Gaussian(mean_F, factor_RF)


@final
class Moments:
    """The mean and covariance of features that come in batches, without keeping them."""

    def __init__(self) -> None:
        self._count, self._mean_F, self._scatter_FF = 0, np.zeros(()), np.zeros(())

    def add(self, features_BF: NDArray[np.floating[Any]]) -> None:
        """Adds the features (B, F) of some images, after Chan, Golub and LeVeque ("Updating Formulae", 1979)."""
        features = np.asarray(features_BF, np.float64)
        mean_F, before, added = features.mean(0), self._count, len(features)
        centred, shift_F = features - mean_F, mean_F - self._mean_F
        self._count += added
        self._mean_F = self._mean_F + shift_F * (added / self._count)
        self._scatter_FF = self._scatter_FF + centred.T @ centred + np.outer(shift_F, shift_F) * (before * added / self._count)

    def gaussian(self) -> Gaussian:
        """What ``gaussian`` gives for all of them together. Raises FewImagesError if they are fewer than two."""
        _check_count(self._count)
        return gaussian_of(self._mean_F, self._scatter_FF / (self._count - 1))


def _check_count(count: int) -> None:
    if count < 2:
        raise FewImagesError(f"a covariance needs features of 2 images or more, and there are {count}. Evaluate more images.")


def gaussian_of(mean_F: NDArray[np.floating[Any]], covariance_FF: NDArray[np.floating[Any]]) -> Gaussian:
    """The normal distribution with a given mean (F,) and covariance (F, F); what rounding left below 0 of its spectrum is 0."""
    values_F, vectors_FF = np.linalg.eigh(np.asarray(covariance_FF, np.float64))
    return Gaussian(np.asarray(mean_F, np.float64), np.sqrt(np.maximum(values_F, 0.0))[:, None] * vectors_FF.T)


def frechet_distance(a_NF: NDArray[np.floating[Any]], b_MF: NDArray[np.floating[Any]]) -> float:
    """The (squared) Fréchet distance of the normal distributions fitted to two sets of features; 0 or more, lower is better.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, equation 6. In features other than those of the paper's
    Inception network it is not FID. It is biased upwards, the more so the fewer the images: compare equal numbers.

    Raises:
        FewImagesError: fewer than two rows in a set.
        UserError: features that are not finite.
    """
    return frechet_between(gaussian(a_NF), gaussian(b_MF))


def frechet_between(a: Gaussian, b: Gaussian) -> float:
    """The (squared) Fréchet distance ‖μ − ν‖² + tr(A + B − 2 (AB)^½) of two normal distributions.

    With A = RᵀR and B = SᵀS the eigenvalues of AB are the squared singular values of RSᵀ, so tr (AB)^½ is the sum of the latter. No
    covariance is formed or inverted: this stays accurate where there are fewer images than features.

    Raises:
        UserError: the two have different numbers of features.
    """
    if a.mean_F.shape != b.mean_F.shape:
        sizes = f"{len(a.mean_F):,} and {len(b.mean_F):,}"
        raise UserError(f"sets of {sizes} features have no distance. Use statistics of the same feature extractor.")
    trace_root = np.linalg.svd(a.factor_RF @ b.factor_RF.T, compute_uv=False).sum()
    spread = (a.factor_RF**2).sum() + (b.factor_RF**2).sum() - 2 * trace_root
    return float(((a.mean_F - b.mean_F) ** 2).sum() + max(0.0, spread))
