"""How much of its codebook a tokenizer uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError
from rarkit.evaluation.metric import Evaluation, Metric
from rarkit.evaluation.record import MetricRecord


@final
class CodebookUse(Metric):
    """The share of ``codebook_use`` of held-out images."""

    name = "codebook_use"
    version = 2

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        data = evaluation.tokenized
        if data is None:
            return []
        share = codebook_use(data.held_out.tokens_NL, data.codebook_size).share
        return [MetricRecord("codebook_use", share, explanation=f"Share of the codebook that {data.held_out_name} use.")]


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
    counts = np.bincount(tokens.ravel(), minlength=codebook_size)
    assert len(counts) == codebook_size, (len(counts), codebook_size)
    if not counts.any():
        raise UserError("there are no tokens to count. Tokenize some images first.")
    frequencies = counts[counts > 0] / counts.sum()
    return CodeFrequencies(float((counts > 0).mean()), float(np.exp(-(frequencies * np.log(frequencies)).sum())))
