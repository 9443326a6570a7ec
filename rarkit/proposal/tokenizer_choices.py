"""The ``[tokenizer]`` table: which codes stand for patches, and how they are learned."""

from __future__ import annotations

from collections.abc import Iterator
from math import log2, prod

import numpy as np

from rarkit.errors import DatasetError
from rarkit.proposal.budget import Budget
from rarkit.proposal.choice import Choice, as_table
from rarkit.proposal.data_choices import Size
from rarkit.proposal.survey import Survey
from rarkit.registry.registry import install

LEARNED, PLAIN = "vq", "patch_kmeans"
INSTALL = f"the plugin rarkit-vq has one that learns, with sharper images ({install('rarkit-vq')})"
MOST_CODES, PATCHES_A_CODE, PATCHES_DIFFERING = 1024, 40, 2
"""Codes at most, training patches for each at least, and how many of those that were looked at must differ for each."""
DISTANCE_RATE = 8e9
"""Assumed FLOP/s of k-means on one core."""
STARTING_ROUNDS = 10
"""What choosing the first centres takes, in rounds of k-means."""
DOWNSAMPLES = (2, 4, 8, 16)
"""Pixels of a token's side that the tokenizer which learns can have."""
WIDTHS, NARROW = (32, 16), "channels; a wider network would have too few steps"
"""Channels of the network, where the time is too short for as many as it has by default."""
STEPS_FROM_NOTHING, STEPS_FROM_KMEANS = 10_000, 500
"""Steps below which a network from nothing stays behind k-means, and one that starts as k-means hardly gets beyond it."""
FEWEST_ROUNDS, MOST_ROUNDS = 2, 100
ROUNDS = "rounds of k-means, at most"
MOST_PATCHES = 200_000
"""Of which ``patch_kmeans`` learns unless its settings say otherwise."""
FOR_START = 0.2
"""Share of a trained tokenizer's time that k-means may take before."""
PATCHES_LOOKED_AT = 100
"""For each code."""
LEVELS = [8, 5, 5, 5]
"""Of FSQ: 1,000 codes (arXiv 2309.15505, table 1 of its appendix)."""


def codes(survey: Survey, size: Size, images: int) -> int:
    """How many codes the patches of so many images can fill: a power of two.

    Raises:
        DatasetError: the images that were looked at have no two patches that differ.
    """
    distinct = _distinct_patches(survey, size)
    if distinct < 2:
        raise DatasetError("the images that were looked at are all of one colour, and the same one. There is nothing to learn.")
    room = min(MOST_CODES, images * size.tokens // PATCHES_A_CODE, distinct // PATCHES_DIFFERING)
    return int(2 ** int(log2(max(2, room))))


def _distinct_patches(survey: Survey, size: Size) -> int:
    """How many patches of the images that were looked at differ, at about the size of the training."""
    crops = survey.crops_NHWC
    step = max(1, crops.shape[1] // size.height)
    crops = crops[:, ::step, ::step]
    patch = size.patch
    high, wide = crops.shape[1] // patch, crops.shape[2] // patch
    cut = crops[:, : high * patch, : wide * patch].reshape(len(crops), high, patch, wide, patch, 3)
    return len(np.unique(cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, patch * patch * 3), axis=0))


def tokenizer_choices(survey: Survey, size: Size, images: int, budget: Budget, *, from_nothing: bool = False) -> list[Choice]:
    """The table, without the steps of one that is trained step by step.

    Args:
        survey: what was found.
        size: of images and patches.
        images: training images, with all views of each.
        budget: the time.
        from_nothing: whether a network that is trained starts with random weights.
    """
    each = f"{size.patch} × {size.patch} pixels become a token, {size.tokens} tokens an image"
    count, values = codes(survey, size, images), size.patch**2 * survey.channels
    many = (
        f"for {images * size.tokens:,} training patches, {PATCHES_A_CODE} or more for each"
        if count < MOST_CODES
        else "10 bits a token"
    )
    if not budget.learned or size.patch not in DOWNSAMPLES:
        lacking = "2, 4, 8 and 16 pixels divide no such images" if budget.learned else INSTALL
        return [
            Choice("name", PLAIN, f"the nearest of mean patches, found by k-means; {lacking}"),
            Choice("patch", size.patch, each),
            Choice("codes", count, many),
            *_rounds(values, count, budget.for_tokenizer),
        ]
    if from_nothing:
        return [
            Choice("name", LEARNED, "a convolutional autoencoder"),
            Choice("downsample", size.patch, each),
            Choice("start", "random", "there is time to train it from nothing, and convolutions see beyond a patch"),
            Choice("quantizer", {"name": "fsq", "levels": LEVELS}, "1,000 codes on a grid of levels, which cannot collapse"),
        ]
    rounds = _count_of_rounds(min(MOST_PATCHES, images * size.tokens), count, values, FOR_START * budget.for_tokenizer)
    return [
        Choice("name", LEARNED, "a network that learns which patches to tell apart, and to draw them"),
        Choice("downsample", size.patch, each),
        Choice("start", "kmeans", "starts as good as k-means, which a network from nothing would need hours to reach"),
        Choice("quantizer", {"name": "vq", "codes": count}, many),
        Choice("kmeans_iterations", rounds, f"{ROUNDS}; training improves on them anyhow"),
    ]


def _rounds(values: int, count: int, seconds: float) -> list[Choice]:
    """Settings of k-means of so many numbers a patch that keep it within some seconds."""
    patches = PATCHES_LOOKED_AT * count
    return [
        Choice("max_patches", patches, f"{PATCHES_LOOKED_AT} for each code"),
        Choice("iterations", _count_of_rounds(patches, count, values, seconds), f"{ROUNDS}; it stops when nothing changes"),
    ]


def _count_of_rounds(patches: int, count: int, values: int, seconds: float) -> int:
    return int(min(MOST_ROUNDS, max(FEWEST_ROUNDS, seconds / _seconds_of_round(patches, count, values) - STARTING_ROUNDS)))


def seconds_of_rounds(chosen: list[Choice], patches: int, values: int) -> float:
    """At most how long k-means takes with the settings of a table.

    Args:
        chosen: the table.
        patches: of the training images.
        values: numbers of a patch.
    """
    table = as_table(chosen)
    rounds = table.get("iterations", table.get("kmeans_iterations"))
    if rounds is None:
        return 0.0
    looked_at = min(patches, table.get("max_patches", MOST_PATCHES))
    return float((rounds + STARTING_ROUNDS) * _seconds_of_round(looked_at, codes_of(chosen), values))


def _seconds_of_round(patches: int, count: int, values: int) -> float:
    return 2 * patches * count * values / DISTANCE_RATE


def is_trained(chosen: list[Choice]) -> bool:
    """Whether the tokenizer of a table is trained step by step."""
    return bool(chosen[0].value == LEARNED)


def codes_of(chosen: list[Choice]) -> int:
    """The codebook size of a table."""
    table = as_table(chosen)
    quantizer = table.get("quantizer", table)
    return int(quantizer["codes"]) if "codes" in quantizer else prod(quantizer["levels"])


def attempts(survey: Survey, size: Size, images: int, budget: Budget) -> Iterator[tuple[list[Choice], int]]:
    """Tables to try one after another, each with the steps that it needs; the last is taken whatever it has.

    Arguments are those of ``tokenizer_choices``.
    """
    if budget.is_long:
        yield tokenizer_choices(survey, size, images, budget, from_nothing=True), STEPS_FROM_NOTHING
    chosen = tokenizer_choices(survey, size, images, budget, from_nothing=False)
    yield chosen, STEPS_FROM_KMEANS
    for width in WIDTHS:
        yield [*chosen, Choice("width", width, NARROW)], STEPS_FROM_KMEANS
