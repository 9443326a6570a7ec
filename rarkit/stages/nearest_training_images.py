"""The training images nearest to a few samples and, as a yardstick, to a few held-out images: a part of ``evaluate``.

Shape letters: N images, H, W, C their height, width and channels, Q images that are looked at, K neighbours, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rarkit.cache.output import StageOutput
from rarkit.datasets.base import Dataset
from rarkit.evaluation.nearest import nearest
from rarkit.features.base import FeatureExtractor, FeatureModel
from rarkit.images import ImageReader, Split
from rarkit.randomness import drawn_rows
from rarkit.stages.measured_images import features_of
from rarkit.stages.reference import REAL

ARRAYS = "nearest_to_"
"""Prefix of the arrays (Q, 1 + K, H, W, C): each image, followed by its neighbours."""
SAMPLES: Final = "samples"
HELD_OUT: Final = "held_out"
CLASSES, NEIGHBOURS = 10, 3
MOST_DRAWN = 4096
"""Training images that are searched where the store does not hold the features of all."""
READ_AT_ONCE = 64


@final
@dataclass(frozen=True)
class Search:
    """What the search reads."""

    samples: StageOutput
    tokens: StageOutput
    """Their labels tell which rows of the dataset are of which class."""
    reference: StageOutput
    dataset: Dataset
    held_out_split: Split
    extractor: FeatureExtractor
    model: FeatureModel
    seed: int


Shown = Literal["samples", "held_out"]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Distances = Annotated[
    list[Annotated[list[float], Field(min_length=1, max_length=NEIGHBOURS)]], Field(min_length=1, max_length=CLASSES)
]


@final
class Nearest(BaseModel):
    """What was searched, and how far the nearest training images are."""

    model_config = ConfigDict(strict=True)

    searched: Count
    """Training images that were compared, of all ``training_images``."""
    training_images: Count
    of_the_classes: bool
    """Whether only images of the classes that are looked at were searched."""
    distances: dict[Shown, Distances]
    """Of each set, Q lists of K distances in the extractor's features."""

    @model_validator(mode="after")
    def _of_samples(self) -> Self:
        if SAMPLES not in self.distances:
            raise ValueError("there are no distances of samples")
        return self


@final
class _Query(NamedTuple):
    images_QHWC: NDArray[np.uint8]
    features_QF: NDArray[np.float32]


def write_nearest(search: Search, features_NF: NDArray[np.float32], output: StageOutput) -> Nearest:
    """Writes the images as arrays.

    Looks at the first sample and the first held-out image of each of ten classes, evenly spaced; at no held-out images where the
    dataset has none.

    Args:
        search: where to look.
        features_NF: of all samples.
        output: of the stage.

    Returns:
        What was searched, and the distances of each set in the extractor's features.
    """
    labels_N = search.samples.read_array("labels")
    classes = np.unique(labels_N)
    classes = classes[np.unique(np.linspace(0, len(classes) - 1, CLASSES).round().astype(int))]
    training = search.dataset.open("train")
    rows_N, blocks = _searched(search, training, classes)
    distances: dict[Shown, list[list[float]]] = {}
    queries = _queries(search, classes, labels_N, features_NF)
    neighbours = nearest(np.concatenate([query.features_QF for query in queries.values()]), blocks, NEIGHBOURS)
    start = 0
    for name, query in queries.items():
        part = slice(start, start + len(query.images_QHWC))
        near_QKHWC = _read(training, rows_N[neighbours.rows_QK[part]])
        output.write_array(f"{ARRAYS}{name}", np.concatenate([query.images_QHWC[:, None], near_QKHWC], 1))
        distances[name] = neighbours.distances_QK[part].tolist()
        start = part.stop
    of_the_classes = search.extractor.reference_batch() is not None
    return Nearest(searched=len(rows_N), training_images=len(training), of_the_classes=of_the_classes, distances=distances)


def _queries(
    search: Search, classes: NDArray[np.int64], labels_N: NDArray[np.int64], features_NF: NDArray[np.float32]
) -> Mapping[Shown, _Query]:
    rows_Q = _first_rows(classes, labels_N)
    images_QHWC = np.concatenate([search.samples.read_array("images", row, row + 1) for row in rows_Q])
    queries: dict[Shown, _Query] = {SAMPLES: _Query(images_QHWC, features_NF[rows_Q])}
    if search.held_out_split == "test":
        held_out_rows_Q = _first_rows(classes, search.tokens.read_array("test_labels"))
        if len(held_out_rows_Q):
            images_QHWC = _read(search.dataset.open("test"), held_out_rows_Q)
            queries[HELD_OUT] = _Query(images_QHWC, _features(search, images_QHWC))
    return queries


def _searched(
    search: Search, training: ImageReader, classes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Iterable[NDArray[np.float32]]]:
    """The rows of the training images that are searched, and their features in blocks.

    These are all, if the reference stage has their features. It has not where samples are compared with a published batch. Then
    they are drawn from the images of the classes, because a copy would be of one of these.
    """
    if search.extractor.reference_batch() is None:
        name = f"{REAL}_features"
        layout = search.reference.layout(name)
        stored = (search.reference.read_array(name, *layout.block_rows(block)) for block in range(layout.blocks))
        return np.arange(len(training)), stored
    rows_N = np.flatnonzero(np.isin(search.tokens.read_array("train_labels"), classes))
    rows_N = rows_N[drawn_rows(search.seed, len(rows_N), MOST_DRAWN)]
    return rows_N, (_features(search, block.images_NHWC) for block in training.chosen(rows_N, READ_AT_ONCE))


def _features(search: Search, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    return features_of(search.model, [images_NHWC], lambda _: None)["features"]


def _first_rows(classes: NDArray[np.int64], labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each class that has one."""
    return np.array([np.flatnonzero(labels_N == label)[0] for label in classes if label in labels_N], dtype=np.int64)


def _read(reader: ImageReader, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The images of rows in any order and of any shape, as (…, H, W, C)."""
    rows_N, places = np.unique(rows, return_inverse=True)
    images_NHWC = np.concatenate([block.images_NHWC for block in reader.chosen(rows_N, READ_AT_ONCE)])
    return images_NHWC[places.reshape(rows.shape)]
