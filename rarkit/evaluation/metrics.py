"""The metrics, in the order of ``metrics.json`` and of the report."""

from __future__ import annotations

from collections.abc import Sequence

from rarkit.errors import FewImagesError
from rarkit.evaluation.bits_per_token import BitsPerToken
from rarkit.evaluation.class_agreement import ClassAgreement
from rarkit.evaluation.codebook_use import CodebookUse
from rarkit.evaluation.diversity import Diversity
from rarkit.evaluation.frechet import FrechetDistance
from rarkit.evaluation.inception_score import InceptionScore
from rarkit.evaluation.metric import Evaluation, Metric
from rarkit.evaluation.precision_recall import PrecisionRecall
from rarkit.evaluation.reconstruction import Reconstruction
from rarkit.evaluation.reconstruction_distance import ReconstructionDistance
from rarkit.evaluation.record import MetricRecord

METRICS: tuple[Metric, ...] = (
    FrechetDistance(),
    ClassAgreement(),
    InceptionScore(),
    Diversity(),
    PrecisionRecall(),
    BitsPerToken(),
    Reconstruction(),
    ReconstructionDistance(),
    CodebookUse(),
)


def measure(metrics: Sequence[Metric], evaluation: Evaluation) -> tuple[list[MetricRecord], list[str]]:
    """All numbers that can be had, and what is left out and why, in a sentence each.

    Too few images for a number do not take away the others: whoever has trained for days wants those.

    Raises:
        UserError: features are not finite.
    """
    records, lacking = [], []
    for metric in metrics:
        lacking += metric.lacking(evaluation)
        try:
            records += metric.measure(evaluation)
        except FewImagesError as error:
            lacking.append(f"{metric.name} is left out: {error}")
    return records, lacking
