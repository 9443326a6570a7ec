"""How faithful a tokenizer is.

Shape letters: N images, H, W, C height, width, channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError

WHITE = 255.0
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2


def psnr(a_NHWC: NDArray[np.uint8], b_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each pair of uint8 images, in dB: (N,) float64, higher is better, infinite for equal images.

    Raises:
        UserError: the two have different shapes.
    """
    _check(a_NHWC, b_NHWC)
    error_N = ((a_NHWC.astype(np.float64) - b_NHWC) ** 2).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = 10 * np.log10(WHITE**2 / error_N)
    return found


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
    found: NDArray[np.float64] = (likeness / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))).mean((1, 2, 3))
    return found


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


@final
@dataclass(frozen=True)
class CodebookUse:
    """How much of a codebook some tokens use."""

    share: float
    """The share of codes that occur at all; 0 to 1."""
    perplexity: float
    """exp of the entropy of the codes' frequencies: 1 for one code, V for all equally often."""


def codebook_use(tokens: NDArray[np.integer[Any]], codebook_size: int) -> CodebookUse:
    """Counts tokens of any shape, each in [0, ``codebook_size``).

    Raises:
        UserError: there are no tokens.
    """
    counts = np.bincount(tokens.ravel(), minlength=codebook_size)
    assert len(counts) == codebook_size, (len(counts), codebook_size)
    if not counts.any():
        raise UserError("there are no tokens to count. Tokenize some images first.")
    frequencies = counts[counts > 0] / counts.sum()
    return CodebookUse(float((counts > 0).mean()), float(np.exp(-(frequencies * np.log(frequencies)).sum())))
