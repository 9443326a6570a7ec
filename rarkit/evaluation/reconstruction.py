"""How faithful a tokenizer is.

Shape letters: N images, H, W, C height, width, channels.
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError
from rarkit.evaluation.metric import Evaluation, Metric
from rarkit.evaluation.record import MetricRecord

WHITE = 255.0
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2
COMPARED = 2**22
"""Numbers of the images that are compared at a time: SSIM holds some ten copies of them in float64."""


@final
class Reconstruction(Metric):
    """``psnr`` and ``ssim`` of held-out images after the tokenizer: a bound on what any model of its tokens can reach."""

    name = "reconstruction"
    version = 2

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        data = evaluation.tokenized
        if data is None:
            return []
        return fidelity(data.decibels_N, data.similarities_N, data.held_out_name)


def fidelity(decibels_N: NDArray[np.float64], similarities_N: NDArray[np.float64], images: str) -> list[MetricRecord]:
    """The numbers of ``Reconstruction``, from ``psnr`` and ``ssim`` of each image; ``images``, for explanations, says which."""
    about = f"Tokenizer alone, over {len(similarities_N):,} {images}"
    similarity = MetricRecord(
        "reconstruction_ssim", float(similarities_N.mean()), better="higher", explanation=f"{about}: structural similarity."
    )
    finite_N = np.isfinite(decibels_N)
    if not finite_N.any():
        return [similarity]
    ratio = MetricRecord(
        "reconstruction_psnr",
        float(decibels_N[finite_N].mean()),
        unit="dB",
        better="higher",
        explanation=f"{about}: peak signal-to-noise ratio of those that are not reproduced exactly.",
    )
    return [ratio, similarity]


def compared(a_NHWC: NDArray[np.uint8], b_NHWC: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``psnr`` and ``ssim`` of each pair of at least one uint8 image, a few at a time."""
    at_once = max(1, COMPARED // a_NHWC[0].size)
    pairs = [(a_NHWC[start : start + at_once], b_NHWC[start : start + at_once]) for start in range(0, len(a_NHWC), at_once)]
    return np.concatenate([psnr(*pair) for pair in pairs]), np.concatenate([ssim(*pair) for pair in pairs])


def psnr(a_NHWC: NDArray[np.uint8], b_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each pair of uint8 images, in dB: (N,) float64, higher is better, infinite for equal images.

    Raises:
        UserError: the two have different shapes.
    """
    _check(a_NHWC, b_NHWC)
    error_N = ((a_NHWC.astype(np.float64) - b_NHWC) ** 2).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        decibels_N: NDArray[np.float64] = 10 * np.log10(WHITE**2 / error_N)
    return decibels_N


def ssim(a_NHWC: NDArray[np.uint8], b_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity of each pair of uint8 images: (N,) float64 in [−1, 1], 1 for equal images.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004: a Gaussian window of 11 × 11 with
    σ = 1.5, K₁ = 0.01, K₂ = 0.03, means over all places where the whole window lies on the image; here also over the channels, each
    compared on its own. On images smaller than that, each side of the window is the largest odd number that fits, and σ the same.

    Raises:
        UserError: the two have different shapes.
    """
    _check(a_NHWC, b_NHWC)
    a, b = a_NHWC.astype(np.float64), b_NHWC.astype(np.float64)
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a, var_b = _windowed(a * a) - mean_a**2, _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    similarity_N: NDArray[np.float64] = (likeness / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))).mean((1, 2, 3))
    return similarity_N


def _windowed(images_NHWC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian means around every pixel whose whole window lies on the image."""
    from scipy.ndimage import correlate1d

    for axis in (1, 2):
        side = images_NHWC.shape[axis]
        reach = (min(WINDOW, side) - 1) // 2
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SIGMA) ** 2)
        images_NHWC = correlate1d(images_NHWC, weights / weights.sum(), axis=axis, mode="nearest")
        images_NHWC = images_NHWC.take(range(reach, side - reach), axis=axis)
    return images_NHWC


def _check(a_NHWC: NDArray[np.uint8], b_NHWC: NDArray[np.uint8]) -> None:
    if a_NHWC.shape != b_NHWC.shape:
        raise UserError(f"images of shapes {a_NHWC.shape} and {b_NHWC.shape} cannot be compared. Compare each image with its copy.")
    assert a_NHWC.dtype == b_NHWC.dtype == np.uint8, (a_NHWC.dtype, b_NHWC.dtype)
