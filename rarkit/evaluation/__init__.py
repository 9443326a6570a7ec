"""Metrics: pure functions of features, class scores, tokens and images, in NumPy and double precision."""

from rarkit.evaluation.bootstrap import bootstrap
from rarkit.evaluation.frechet import Gaussian, frechet_between, frechet_distance, gaussian, gaussian_of
from rarkit.evaluation.neighbours import PrecisionRecall, precision_recall
from rarkit.evaluation.reconstruction import CodebookUse, codebook_use, psnr, ssim
from rarkit.evaluation.scores import agreement, bits_per_token, diversity, inception_score, taking_turns

__all__ = [
    "frechet_distance",
    "frechet_between",
    "gaussian",
    "gaussian_of",
    "Gaussian",
    "inception_score",
    "taking_turns",
    "precision_recall",
    "PrecisionRecall",
    "agreement",
    "diversity",
    "bits_per_token",
    "psnr",
    "ssim",
    "codebook_use",
    "CodebookUse",
    "bootstrap",
]
