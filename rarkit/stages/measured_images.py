"""Taking features of images: of sets of them, as ranges of rows that any rank can read.

Shape letters: N images, B batch, H, W, C height, width and channels of an image, L tokens per image, F, S features,
K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.features.base import FeatureModel
from rarkit.images import ImageBlock, ImageReader
from rarkit.runtime.progress import Advance
from rarkit.stages.tokenize import decoded
from rarkit.tokenizers.base import TokenizerModel

Batch = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (B, H, W, C), and their labels (B,) if they have any."""


@final
@dataclass(frozen=True)
class ImageSet:
    """``count`` images, and a function that gives the batches of the rows from a first to an end (exclusive).

    Whoever asks for a range gets the same batches.
    """

    count: int
    batches: Callable[[int, int], Iterator[Batch]]


def all_of(reader: ImageReader, batch_size: int) -> ImageSet:
    """All images of a reader."""
    return ImageSet(len(reader), lambda start, stop: map(_labelled, reader.blocks(start, stop, batch_size)))


def some_of(reader: ImageReader, rows_N: NDArray[np.int64], batch_size: int) -> ImageSet:
    """Some rows of a reader, ascending and each at most once."""
    return ImageSet(len(rows_N), lambda start, stop: map(_labelled, reader.chosen(rows_N[start:stop], batch_size)))


def decoded_from(
    tokenizer: TokenizerModel, tokens_NL: NDArray[np.int64], labels_N: NDArray[np.int64], grid: tuple[int, int], batch_size: int
) -> ImageSet:
    """Images decoded from tokens in raster order."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for images_BHWC in decoded(tokenizer, tokens_NL[start:stop], grid, batch_size):
            end = start + len(images_BHWC)
            yield images_BHWC, labels_N[start:end]
            start = end

    return ImageSet(len(tokens_NL), batches)


def streamed(opened: Callable[[], Iterator[NDArray[np.uint8]]], count: int, batch_size: int) -> ImageSet:
    """The ``count`` images of a stream of batches of any size, without labels.

    Rows that are skipped are read too, and going back opens the stream anew.
    """
    images, position = iter(()), count

    def batches(start: int, stop: int) -> Iterator[Batch]:
        nonlocal images, position
        if start < position:
            images, position = (image for images_BHWC in opened() for image in images_BHWC), 0
        for _ in islice(images, start - position):
            pass
        for first in range(start, stop, batch_size):
            position = min(first + batch_size, stop)
            yield np.stack(list(islice(images, position - first))), None

    return ImageSet(count, batches)


def _labelled(block: ImageBlock) -> Batch:
    return block.images_NHWC, block.labels_N


def features_and_labels(model: FeatureModel, batches: Iterable[Batch], advance: Advance) -> dict[str, NDArray[Any]]:
    """``features_of`` of the batches of a block, and their ``labels`` if they have any."""
    labels: list[NDArray[np.int64]] = []

    def images() -> Iterator[NDArray[np.uint8]]:
        for images_BHWC, labels_B in batches:
            if labels_B is not None:
                labels.append(labels_B)
            yield images_BHWC

    features = features_of(model, images(), advance)
    return {**features, **({"labels": np.concatenate(labels)} if labels else {})}


def features_of(model: FeatureModel, images: Iterable[NDArray[np.uint8]], advance: Advance) -> dict[str, NDArray[np.float32]]:
    """``features`` (N, F) of all images, and if the extractor has them ``logits`` (N, K) and ``spatial`` (N, S)."""
    import torch

    batches: dict[str, list[NDArray[np.float32]]] = {}
    with torch.inference_mode():
        for images_BHWC in images:
            # Torch has no read-only tensors, so images of a memory-mapped store are copied.
            batch = model(torch.from_numpy(np.require(images_BHWC, requirements="W")))
            for name, values in (("features", batch.features_BF), ("logits", batch.logits_BC), ("spatial", batch.spatial_BS)):
                if values is not None:
                    batches.setdefault(name, []).append(values.float().cpu().numpy())
            advance(len(images_BHWC))
    return {name: np.concatenate(parts) for name, parts in batches.items()}
