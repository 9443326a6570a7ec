"""How often each code of a tokenizer occurs, as a chart.

Shape letters: N images, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import read_rows
from rarkit.evaluation.codebook_use import code_counts
from rarkit.randomness import drawn_rows
from rarkit.recipe.experiment import Experiment
from rarkit.rendering.figures import Curve, Series

COUNTED_IMAGES = 10_000
LABELS = {"train": "training images", "test": "held-out images"}


def code_use(experiment: Experiment, tokens: StageOutput) -> list[Curve]:
    """The share of the tokens that each code has, from the most frequent code to the rarest; codes that do not occur end the line.

    Args:
        experiment: whose codes these are.
        tokens: the output of ``tokenize``; at most 10,000 images of each split are counted, those that the evaluation measures.
    """
    codes, seed = experiment.codebook_size, experiment.recipe.seed
    even = Series("all equally often", np.array([1, codes]), np.full(2, 1 / codes), faint=True)
    series = [_ranked(LABELS[split], _tokens(tokens, f"{split}_tokens", seed), codes) for split in experiment.splits]
    return [Curve("Use of the codes", f"code, from the most frequent of {codes:,}", "share of tokens", (even, *series), log_y=True)]


def _tokens(output: StageOutput, name: str, seed: int) -> NDArray[np.int64]:
    rows_N = drawn_rows(seed, output.layout(name).shape[0], COUNTED_IMAGES)
    return read_rows(output, name, rows_N).astype(np.int64)


def _ranked(label: str, tokens_NL: NDArray[np.int64], codes: int) -> Series:
    counts_V = code_counts(tokens_NL, codes)
    used = np.sort(counts_V[counts_V > 0])[::-1]
    return Series(label, np.arange(1, len(used) + 1), used / counts_V.sum())
