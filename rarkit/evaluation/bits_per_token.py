"""Held-out likelihood in bits per token.

Shape letters: N images, L tokens of an image.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
from numpy.typing import NDArray

from rarkit.evaluation.intervals import FEWEST, mean_interval, rows_that_count
from rarkit.evaluation.metric import TRAINING_IMAGES, Evaluation, Metric, TokenizedData, TokenSet
from rarkit.evaluation.record import MetricRecord

USUAL_BITS = 1.0
"""Per token, of an image that counts fully as one for the interval."""
TOO_FEW_BITS = "there are too few images, or nearly all cost next to nothing and the few others decide"


@final
class BitsPerToken(Metric):
    """How many bits the model needs for a token of an image that it has not seen."""

    name = "bits_per_token"
    version = 3

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        data = evaluation.tokenized
        if data is None:
            return []
        bits_N = _bits(data, data.held_out)
        enough = rows_that_count(bits_N, USUAL_BITS) >= FEWEST
        low, high = mean_interval(bits_N) if evaluation.resamplings and enough else (None, None)
        return [
            MetricRecord(
                "bits_per_token",
                _mean(bits_N),
                low,
                high,
                unit="bits",
                no_interval="" if low is not None or not evaluation.resamplings else TOO_FEW_BITS,
                better="lower",
                explanation=f"Negative log-likelihood of the tokens of {data.held_out_name} along the scan order.",
                yardsticks={
                    TRAINING_IMAGES: _mean(_bits(data, data.train)),
                    "token frequencies": frequency_bits(data.train.tokens_NL, data.held_out.tokens_NL, data.codebook_size),
                    "uniform tokens": math.log2(data.codebook_size),
                },
            )
        ]


def frequency_bits(train_NL: NDArray[np.int64], held_out_NL: NDArray[np.int64], codebook_size: int) -> float:
    """Bits per token of a model that knows how often each code occurs (Laplace's rule of succession), and nothing else."""
    counts_V = np.bincount(train_NL.ravel(), minlength=codebook_size) + 1.0
    return float(-np.log2(counts_V / counts_V.sum())[held_out_NL.ravel()].mean())


def _bits(data: TokenizedData, tokens: TokenSet) -> NDArray[np.float64]:
    return data.nats_per_token(tokens) / math.log(2)


def _mean(bits_N: NDArray[np.float64]) -> float:
    return float(bits_N.mean())
