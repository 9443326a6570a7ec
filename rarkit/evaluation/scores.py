"""Metrics of class scores and of the spread within classes.

Shape letters: N and M images, K classes, F features.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError


def inception_score(logits_NK: NDArray[np.floating[Any]], split_size: int | None = 5000) -> float:
    """exp of the mean Kullback–Leibler divergence of an image's class distribution from that of all images; from 1 to K.

    Salimans et al., "Improved Techniques for Training GANs", 2016. As in OpenAI's ADM evaluator, it is the mean over consecutive
    splits of 5,000 images (the last may be smaller); put images that are sorted by class into the order of ``taking_turns`` first.

    Args:
        logits_NK: class scores before the softmax. With another classifier than Inception it is comparable only with itself.
        split_size: images of a split; None for all.
    """
    log_p_NK = _log_softmax(logits_NK)
    size = split_size or len(log_p_NK)
    scores = []
    for start in range(0, len(log_p_NK), size):
        part = log_p_NK[start : start + size]
        log_mean_K = np.logaddexp.reduce(part, axis=0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - log_mean_K)).sum(1).mean()))
    return float(np.mean(scores))


def taking_turns(labels_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The rows (N,) in an order in which classes take turns: the first of each class, then the second of each, and so on.

    Images that are stored class by class are put in this order where consecutive images are taken together, as in the splits of
    the inception score.
    """
    by_class_N = np.argsort(labels_N, kind="stable")
    _, counts = np.unique(labels_N, return_counts=True)
    turn_N = np.arange(len(labels_N)) - np.repeat(np.cumsum(counts) - counts, counts)
    found: NDArray[np.int64] = by_class_N[np.argsort(turn_N, kind="stable")]
    return found


def _log_softmax(logits_NK: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    logits = np.asarray(logits_NK, dtype=np.float64)
    found: NDArray[np.float64] = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return found


def agreement(logits_NK: NDArray[np.floating[Any]], labels_N: NDArray[np.integer[Any]]) -> float:
    """The share of images whose likeliest class is the one that was asked for; 0 to 1."""
    return float((np.argmax(logits_NK, axis=1) == labels_N).mean())


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
        UserError: no class can be compared.
    """
    ratios = []
    for label in np.unique(real_labels_N):
        real = _squared_spread(real_NF[real_labels_N == label])
        fake = _squared_spread(fake_MF[fake_labels_M == label])
        if real is not None and fake is not None and real > 0:
            ratios.append(math.sqrt(fake / real))
    if not ratios:
        raise UserError("no class has two images or more, real and generated, that differ. Evaluate more images.")
    return float(np.mean(ratios))


def _squared_spread(features_NF: NDArray[np.floating[Any]]) -> float | None:
    """The mean of ‖x − y‖² over pairs, which is twice the trace of the covariance; None for fewer than two rows."""
    if len(features_NF) < 2:
        return None
    return 2 * float(np.asarray(features_NF, dtype=np.float64).var(axis=0, ddof=1).sum())


def bits_per_token(nats_N: NDArray[np.floating[Any]]) -> float:
    """The mean of cross-entropies in nats, in bits."""
    return float(np.mean(nats_N, dtype=np.float64) / math.log(2))
