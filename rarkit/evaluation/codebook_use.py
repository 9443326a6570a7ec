"""How much of its codebook a tokenizer uses.

Shape letters: V codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError
from rarkit.evaluation.metric import TRAINING_IMAGES, Evaluation, Metric
from rarkit.evaluation.record import MetricRecord


@final
class CodebookUse(Metric):
    """``codebook_use`` of held-out images, beside that of training images."""

    name = "codebook_use"
    version = 3

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        data = evaluation.tokenized
        if data is None:
            return []
        held_out = codebook_use(data.held_out.tokens_NL, data.codebook_size)
        if data.held_out_split == "train":
            return use_records(held_out, data.held_out_name)
        return use_records(held_out, data.held_out_name, codebook_use(data.train.tokens_NL, data.codebook_size))


@final
@dataclass(frozen=True)
class CodeFrequencies:
    """How much of a codebook some tokens use."""

    share: float
    """The share of codes that occur at all; 0 to 1."""
    perplexity: float
    """exp of the entropy of the codes' frequencies: 1 for one code, V for all equally often."""


def codebook_use(tokens: NDArray[np.integer[Any]], codebook_size: int) -> CodeFrequencies:
    """Counts tokens of any shape, each in [0, ``codebook_size``).

    Raises:
        UserError: there are no tokens.
    """
    return use_of(code_counts(tokens, codebook_size))


def code_counts(tokens: NDArray[np.integer[Any]], codebook_size: int) -> NDArray[np.int64]:
    """How often each code occurs in tokens of any shape, each in [0, ``codebook_size``): (V,)."""
    counts_V = np.bincount(tokens.ravel(), minlength=codebook_size)
    assert len(counts_V) == codebook_size, (len(counts_V), codebook_size)
    return counts_V


def use_of(counts_V: NDArray[np.int64]) -> CodeFrequencies:
    """The same from how often each code occurs. Raises UserError if there are no tokens."""
    if not counts_V.any():
        raise UserError("there are no tokens to count. Tokenize some images first.")
    frequencies = counts_V[counts_V > 0] / counts_V.sum()
    return CodeFrequencies(float((counts_V > 0).mean()), float(np.exp(-(frequencies * np.log(frequencies)).sum())))


def use_records(use: CodeFrequencies, images: str, training: CodeFrequencies | None = None) -> list[MetricRecord]:
    """The numbers of ``CodebookUse``; ``images``, for explanations, says of which images, and ``training`` is the yardstick."""
    return [
        MetricRecord(
            "codebook_use",
            use.share,
            explanation=f"Share of the codebook that {images} use.",
            yardsticks={} if training is None else {TRAINING_IMAGES: training.share},
        ),
        MetricRecord(
            "codebook_perplexity",
            use.perplexity,
            explanation=f"As many codes, equally often, would be as hard to guess as those of {images}.",
            yardsticks={} if training is None else {TRAINING_IMAGES: training.perplexity},
        ),
    ]
