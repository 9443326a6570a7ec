"""The metrics, in the order of ``metrics.json`` and of the report."""

from __future__ import annotations

from rarkit.evaluation.bits_per_token import BitsPerToken
from rarkit.evaluation.class_agreement import ClassAgreement
from rarkit.evaluation.codebook_use import CodebookUse
from rarkit.evaluation.diversity import Diversity
from rarkit.evaluation.frechet import FrechetDistance
from rarkit.evaluation.inception_score import InceptionScore
from rarkit.evaluation.metric import Metric
from rarkit.evaluation.precision_recall import PrecisionRecall
from rarkit.evaluation.reconstruction import Reconstruction

METRICS: tuple[Metric, ...] = (
    FrechetDistance(),
    ClassAgreement(),
    InceptionScore(),
    Diversity(),
    PrecisionRecall(),
    BitsPerToken(),
    Reconstruction(),
    CodebookUse(),
)
