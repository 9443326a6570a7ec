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

from rarkit.evaluation.reconstruction import compared
from rarkit.features.base import FeatureModel
from rarkit.images import ImageBlock, ImageReader
from rarkit.runtime.progress import Advance
from rarkit.stages.tokenize import decoded
from rarkit.tokenizers.base import TokenizerModel

Batch = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (B, H, W, C), and their labels (B,) if they have any."""

FIDELITY = ("psnr", "ssim")
"""The arrays of a set of reconstructions with the PSNR, in dB, and the SSIM of each, NaN where it is not compared."""


@final
@dataclass(frozen=True)
class Originals:
    """What N reconstructions are compared with: rows of a reader, of which some are read."""

    reader: ImageReader
    rows_N: NDArray[np.int64]
    is_compared_N: NDArray[np.bool_]
    batch_size: int

    def images(self, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
        """Those that are compared, (H, W, C), of the reconstructions from ``start`` to ``stop`` (exclusive)."""
        rows_M = self.rows_N[start:stop][self.is_compared_N[start:stop]]
        return (image for block in self.reader.chosen(rows_M, self.batch_size) for image in block.images_NHWC)


@final
@dataclass(frozen=True)
class ImageSet:
    """``count`` images, and a function that gives the batches of the rows from a first to an end (exclusive).

    Whoever asks for a range gets the same batches.
    """

    count: int
    batches: Callable[[int, int], Iterator[Batch]]
    originals: Originals | None = None
    """The images that these are reconstructions of, row by row."""


def all_of(reader: ImageReader, batch_size: int) -> ImageSet:
    """All images of a reader."""
    return ImageSet(len(reader), lambda start, stop: map(_labelled, reader.blocks(start, stop, batch_size)))


def some_of(reader: ImageReader, rows_N: NDArray[np.int64], batch_size: int) -> ImageSet:
    """Some rows of a reader, ascending and each at most once."""
    return ImageSet(len(rows_N), lambda start, stop: map(_labelled, reader.chosen(rows_N[start:stop], batch_size)))


def decoded_from(
    tokenizer: TokenizerModel,
    tokens_NL: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    grid: tuple[int, int],
    batch_size: int,
    originals: Originals | None = None,
) -> ImageSet:
    """Images decoded from tokens in raster order; ``originals``, if they are known, have the same rows."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for images_BHWC in decoded(tokenizer, tokens_NL[start:stop], grid, batch_size):
            end = start + len(images_BHWC)
            yield images_BHWC, labels_N[start:end]
            start = end

    return ImageSet(len(tokens_NL), batches, originals)


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


def measured_rows(model: FeatureModel, images: ImageSet, start: int, stop: int, advance: Advance) -> dict[str, NDArray[Any]]:
    """What is kept of the rows from ``start`` to ``stop`` (exclusive), by name.

    ``features_of`` them, their ``labels`` (N,) int64 if they have any, and of reconstructions ``psnr`` and ``ssim`` (N,) float64.
    """
    kept: dict[str, list[NDArray[Any]]] = {}

    def seen() -> Iterator[NDArray[np.uint8]]:
        row, originals = start, images.originals
        read = None if originals is None else originals.images(start, stop)
        for images_BHWC, labels_B in images.batches(start, stop):
            if labels_B is not None:
                kept.setdefault("labels", []).append(labels_B)
            if originals is not None and read is not None:
                is_compared_B = originals.is_compared_N[row : row + len(images_BHWC)]
                for name, values_B in zip(FIDELITY, _fidelity(images_BHWC, read, is_compared_B), strict=True):
                    kept.setdefault(name, []).append(values_B)
            row += len(images_BHWC)
            yield images_BHWC

    features = features_of(model, seen(), advance)
    return {**features, **{name: np.concatenate(batches) for name, batches in kept.items()}}


def _fidelity(
    images_BHWC: NDArray[np.uint8], originals: Iterator[NDArray[np.uint8]], is_compared_B: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """PSNR and SSIM, (2, B), of reconstructions; takes an original for each that is compared."""
    values_2B = np.full((len(FIDELITY), len(images_BHWC)), np.nan)
    if is_compared_B.any():
        values_2B[:, is_compared_B] = compared(np.stack(list(islice(originals, is_compared_B.sum()))), images_BHWC[is_compared_B])
    return values_2B


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
