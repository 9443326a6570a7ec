"""How often each code of a tokenizer occurs, as a chart.

Shape letters: S sets of images, V codebook size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.rendering.figures import Curve, Series
from rarkit.stages.evaluate import CODE_COUNTS

LABELS = "training images", "held-out images"


def code_use(evaluate: StageOutput) -> list[Curve]:
    """The share of the tokens that each code has, from the most frequent code to the rarest; codes that do not occur end the line.

    Empty if the recipe has no yardsticks.
    """
    if CODE_COUNTS not in evaluate.begun().arrays:
        return []
    counts_SV = evaluate.read_array(CODE_COUNTS)
    codes = counts_SV.shape[1]
    even = Series("all equally often", np.array([1, codes]), np.full(2, 1 / codes), faint=True)
    series = [ranked(label, counts_V) for label, counts_V in zip(LABELS, counts_SV, strict=False)]
    return [Curve("Use of the codes", f"code, from the most frequent of {codes:,}", "share of tokens", (even, *series), log_y=True)]


def ranked(label: str, counts_V: NDArray[np.int64]) -> Series:
    """The shares of the codes that occur, falling."""
    used = np.sort(counts_V[counts_V > 0])[::-1]
    return Series(label, np.arange(1, len(used) + 1), used / counts_V.sum())
