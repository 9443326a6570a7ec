"""Splits images into training and test images, and keeps the two apart. Shape letter: N images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.notices import notify, some_of
from rarkit.errors import DatasetError
from rarkit.images import Split
from rarkit.randomness import uniforms


def split_rows(labels_N: NDArray[np.int64], test_fraction: float, seed: int) -> dict[Split, NDArray[np.int64]]:
    """The rows of each split in shuffled order: a partition of 0 … N − 1 that splits each class in the same proportion.

    Depends only on the labels, the fraction and the seed.
    """
    chance_N, place_N = uniforms(seed, "split", 0, np.arange(len(labels_N)), 2).T
    for_test_N = np.zeros(len(labels_N), dtype=bool)
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        for_test_N[rows[np.argsort(chance_N[rows])[: held_out(len(rows), test_fraction)]]] = True
    shuffled_N = np.argsort(place_N)
    return {"train": shuffled_N[~for_test_N[shuffled_N]], "test": shuffled_N[for_test_N[shuffled_N]]}


def held_apart(labels_N: NDArray[np.int64], test_fraction: float, seed: int, place: str) -> dict[Split, NDArray[np.int64]]:
    """The rows of each split of data that have no test split, ascending: a partition of 0 … N − 1.

    Each class gives the same part to the test split, and at least one image of two or more. It depends only on the labels, the
    fraction and the seed.

    Args:
        labels_N: the class of each row.
        test_fraction: the part, between 0 and 1.
        seed: decides which images these are.
        place: the data, for the message.

    Raises:
        DatasetError: no class has two images.
    """
    rows = split_rows(labels_N, test_fraction, seed)
    if not len(rows["test"]):
        raise DatasetError(
            f'no class in {place} has two images, so none can be held out for testing: set test = "", or add images.'
        )
    return {split: np.sort(rows_N) for split, rows_N in rows.items()}


def check_apart(
    train: Iterable[Any],
    test: Mapping[Any, str],
    what: str,
    place: str,
    cure: str,
    *,
    may_share: bool = True,
) -> None:
    """Refuses test data of which all are training data, too; where some are, which may be on purpose, it tells of them.

    Args:
        train: what training images are read from, each by what tells it from others, such as ``file_identity``.
        test: what test images are read from, likewise, with names for the message.
        what: what these are, in the plural: ``"images"``, ``"shards"``.
        place: the test data, for the message.
        cure: the end of the error.
        may_share: whether some may be both. If not, they are refused, too.

    Raises:
        DatasetError: nothing is for tests alone, or something is not and ``may_share`` is false.
    """
    shared = test.keys() & train
    both = [name for identity, name in test.items() if identity in shared]
    if not both:
        return
    some = "all" if len(both) == len(test) else f"{len(both):,} of {len(test):,}"
    told = f"{place}: {some} test {what} are training {what}, too ({some_of(both)})"
    if len(both) == len(test) or not may_share:
        raise DatasetError(f"{told}. {cure}")
    notify(f"{told}, so what is measured on them flatters the model")


def held_out(count: int, fraction: float) -> int:
    """Number of test images in a class of ``count`` images: at least one, unless it has only one."""
    return min(max(1, round(count * fraction)), count - 1)
