"""Whether samples are of the class that was asked for.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.evaluation.intervals import share_interval
from rarkit.evaluation.metric import Evaluation, Metric
from rarkit.evaluation.record import MetricRecord


@final
class ClassAgreement(Metric):
    """``agreement``, where the extractor is a classifier of the dataset's own classes."""

    name = "class_agreement"
    version = 2

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        if "logits" not in evaluation.samples or not evaluation.extractor.knows_classes:
            return []
        return [
            evaluation.compare(
                "class_agreement",
                agreement,
                lambda images: (images["logits"], images["labels"]),
                better="higher",
                interval=lambda logits_NK, labels_N: share_interval(_hits(logits_NK, labels_N), labels_N),
                explanation="How often the classifier sees the class that was asked for.",
            )
        ]


def agreement(logits_NK: NDArray[np.floating[Any]], labels_N: NDArray[np.integer[Any]]) -> float:
    """The share of images whose likeliest class is the one that was asked for; 0 to 1."""
    return float(_hits(logits_NK, labels_N).mean())


def _hits(logits_NK: NDArray[np.floating[Any]], labels_N: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    hits_N: NDArray[np.bool_] = np.argmax(logits_NK, axis=1) == labels_N
    return hits_N
