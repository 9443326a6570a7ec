"""The inception score.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.evaluation.intervals import rows_that_count
from rarkit.evaluation.metric import Evaluation, Metric
from rarkit.evaluation.record import MetricRecord


@final
class InceptionScore(Metric):
    """``inception_score``, where the extractor is a classifier, but not of the dataset's own classes."""

    name = "inception_score"
    version = 4

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        if "logits" not in evaluation.samples or evaluation.extractor.knows_classes:
            return []
        return [
            evaluation.compare(
                "inception_score",
                lambda logits_NK, labels_N: inception_score(logits_NK[taking_turns(labels_N)]),
                lambda images: (images["logits"], images["labels"]),
                better="higher",
                counting=(
                    lambda logits_NK, labels_N: unsure_images(logits_NK),
                    "nearly all samples are classified with certainty, and the few others decide",
                ),
                lowest=1.0,
                explanation="How sure the classifier is of each sample, and how many classes it sees in all; splits of 5,000, "
                "classes in turn.",
            )
        ]


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


def unsure_images(logits_NK: NDArray[np.floating[Any]]) -> float:
    """How many images the classifier is unsure of, by the entropies of their classes: one that wavers between two counts as one."""
    log_p_NK = _log_softmax(logits_NK)
    return rows_that_count(-(np.exp(log_p_NK) * log_p_NK).sum(1), math.log(2))


def taking_turns(labels_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The rows (N,) in an order in which classes take turns: the first of each class, then the second of each, and so on.

    Images that are stored class by class are put in this order where consecutive images are taken together, as in the splits of
    the inception score.
    """
    by_class_N = np.argsort(labels_N, kind="stable")
    _, counts = np.unique(labels_N, return_counts=True)
    turn_N = np.arange(len(labels_N)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows_N: NDArray[np.int64] = by_class_N[np.argsort(turn_N, kind="stable")]
    return rows_N


def _log_softmax(logits_NK: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    logits = np.asarray(logits_NK, dtype=np.float64)
    log_p_NK: NDArray[np.float64] = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return log_p_NK
