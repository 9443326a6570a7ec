"""Looks at somebody's images: all names, and a sample of the pixels.

Shape letters: N images, H, W, C height, width, channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from time import perf_counter
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.base import Dataset
from rarkit.datasets.decoding import EncodedImage
from rarkit.datasets.encoded import EncodedDataset
from rarkit.datasets.workers import Workers, usable_workers
from rarkit.errors import DatasetError
from rarkit.images import Split
from rarkit.proposal.all_images import SPLITS, AllImages
from rarkit.proposal.layout import Layout
from rarkit.proposal.look import Look, looks
from rarkit.randomness import drawn_rows
from rarkit.registry.loader import parts
from rarkit.runtime.progress import Reporter

MOST_LOOKED_AT = 300
SEED = 1
"""Draws the images that are looked at."""
AT_ONCE = 10
ROWS = 1000
"""Images of arrays that are read at a time for their labels."""
FEWEST = 10
"""Images that can be read, of which something can be learned."""


@final
@dataclass(frozen=True)
class Survey:
    """What was found."""

    layout: Layout
    images: dict[Split, int]
    """How many there are; where there is no test split, ``"test"`` has 0."""
    classes: tuple[tuple[str, int], ...] | None
    """By name, how many training images each class has; None if this is not known without reading them."""
    class_names: tuple[str, ...]
    looks: tuple[Look, ...]
    """Of those that were drawn."""
    rows_N: NDArray[np.int64]
    """Which rows of ``AllImages`` these are, or of the training images if the data come as arrays."""
    seconds: float = 0.0
    """Of a processor, to read and crop an image."""
    shape: tuple[int, int, int] | None = None
    """Height, width and channels, if the data decide them."""

    @property
    def count(self) -> int:
        """All images."""
        return sum(self.images.values())

    @property
    def channels(self) -> int:
        """Of the images as a model sees them."""
        return 3 if self.shape is None else self.shape[2]

    @cached_property
    def sound(self) -> tuple[Look, ...]:
        """The images that can be read, of those that were looked at."""
        return tuple(look for look in self.looks if not look.fault)

    @property
    def damaged(self) -> tuple[Look, ...]:
        """Those that cannot."""
        return tuple(look for look in self.looks if look.fault)

    @cached_property
    def sides(self) -> NDArray[np.int64]:
        """The shorter side of each image that can be read."""
        return np.array([min(look.width, look.height) for look in self.sound], dtype=np.int64)

    @cached_property
    def crops_NHWC(self) -> NDArray[np.uint8]:
        """What was seen of the images that can be read."""
        return np.stack([look.crop_HWC for look in self.sound if look.crop_HWC is not None])

    def share(self, what: str) -> float:
        """The share of sound images of which an attribute of ``Look`` is true."""
        return float(np.mean([getattr(look, what) for look in self.sound]))


def survey(layout: Layout, reporter: Reporter) -> Survey:
    """Looks at the images of a layout.

    Raises:
        DatasetError: they are too few, or none of those that were looked at can be read.
    """
    part = dataset_of(layout)
    found = _of_encoded(layout, part, reporter) if isinstance(part, EncodedDataset) else _of_arrays(layout, part)
    place = str(layout.dataset[1].value)
    if found.looks and not found.sound:
        raise DatasetError(
            f"none of the {len(found.looks)} images of {place} that were looked at can be read. The first: {found.damaged[0].fault}"
        )
    readable = found.count if len(found.looks) < found.count else len(found.sound)
    if readable < FEWEST:
        can = " that can be read" if found.damaged else ""
        images = "image" if readable == 1 else "images"
        damaged = [f"Of {len(found.damaged)} more: {found.damaged[0].fault}"] if found.damaged else []
        raise DatasetError(
            f"{place} has {readable} {images}{can}, and a model learns from many: {FEWEST} at the very least, better some hundred. "
            "Add images, or name the folder that has them.",
            *damaged,
        )
    return found


def dataset_of(layout: Layout, **settings: Any) -> Dataset:
    """The dataset part of a layout, with more settings."""
    table = {choice.key: choice.value for choice in layout.dataset if choice.key != "name"}
    return parts().datasets[str(layout.setting("name"))](**table, **settings)


def _of_encoded(layout: Layout, part: EncodedDataset, reporter: Reporter) -> Survey:
    files, names = AllImages(part), part.classes()
    drawn = files.drawn(SEED, MOST_LOOKED_AT)
    workers = usable_workers() if files.portable and len(drawn) > 2 * AT_ONCE else 0
    seen: list[Look] = []
    began, before = perf_counter(), 0
    with reporter.task("looking at images", len(drawn), "images") as advance:
        for batch in Workers(workers).map(partial(looks, files.filesystem), _batches(files.encoded(drawn))):
            if not seen and workers:
                # Until then, the workers were starting.
                began, before = perf_counter(), len(batch)
            seen += batch
            advance(len(batch))
    seconds = (perf_counter() - began) * max(1, workers) / max(1, len(drawn) - before)
    labels = files.training_labels() if layout.classes is None else None
    unread = Counter(look.label for look, row in zip(seen, drawn, strict=True) if look.fault and row < files.counts["train"])
    counted = None if labels is None else tuple((name, labels[label] - unread[label]) for label, name in enumerate(names))
    counted = layout.classes if labels is None else counted
    return Survey(layout, files.counts, counted, names, tuple(seen), drawn, seconds)


def _batches(images: Iterator[EncodedImage]) -> Iterator[list[EncodedImage]]:
    while batch := list(islice(images, AT_ONCE)):
        yield batch


def _of_arrays(layout: Layout, part: Dataset) -> Survey:
    """Of data that come as arrays of one size, and can be read in no time."""
    info, reader = part.info(), part.open("train")
    images: dict[Split, int] = {split: len(part.open(split)) if split in part.splits() else 0 for split in SPLITS}
    drawn = drawn_rows(SEED, len(reader), MOST_LOOKED_AT)
    seen = []
    for block in reader.chosen(drawn, max(1, len(drawn))):
        for image_HWC, label in zip(block.images_NHWC, block.labels_N.tolist(), strict=True):
            rgb_HWC = np.broadcast_to(image_HWC, (*image_HWC.shape[:2], 3))
            grey = bool((rgb_HWC == rgb_HWC[..., :1]).all())
            seen.append(Look("", label, "", info.width, info.height, grey=grey, crop_HWC=rgb_HWC))
    counts = Counter[int]()
    for block in reader.blocks(0, len(reader), ROWS):
        counts.update(block.labels_N.tolist())
    classes = tuple((name, counts[label]) for label, name in enumerate(info.class_names))
    return Survey(layout, images, classes, info.class_names, tuple(seen), drawn, 0.0, (info.height, info.width, info.channels))
