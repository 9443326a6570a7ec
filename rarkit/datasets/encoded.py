"""What datasets of encoded images (photographs in files) have in common."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Annotated, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rarkit.datasets.base import Dataset
from rarkit.datasets.decoding import DecodedReader, Source, faults, usable_workers
from rarkit.datasets.preparation import Crop, Preparation
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.registry.component import NotInFingerprint

NAMED = 3
"""How many skipped images a warning names."""
_KEPT: dict[tuple[str, str], NDArray[np.int64]] = {}
"""Which files of a source can be decoded: found out once in a process, since it takes as long as decoding them all."""


class EncodedDataset(Dataset, ABC):
    """Images that are decoded, in worker processes, and cropped to squares when they are read."""

    size: Annotated[int, Field(ge=1)] = 256
    """Height and width of the crops."""
    crop: Crop = "centre"
    """Of training images, the centre crop or all ten of the ten-crop; of test images always the centre crop."""
    exif: bool = False
    """Whether to turn images as their EXIF orientation says. The published pipelines do not."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What an image that cannot be decoded is: an error, or skipped and counted. Skipping decodes all images once beforehand."""
    workers: Annotated[int | None, Field(ge=0), NotInFingerprint()] = None
    """Processes that decode; 0 for none. Left out: one for each processor core, divided among the ranks on this machine."""

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """In the order of the labels; quick. Raises DatasetError if the data is not there."""

    @abstractmethod
    def source(self, split: Split) -> Source:
        """The files of a split, with labels. Raises DatasetError if they are not there."""

    def files(self, split: Split) -> int | None:
        """How many files a split has, where that is known without reading them. Raises DatasetError if they are not there."""
        return None

    @final
    def count(self, split: Split) -> int | None:
        # Which images are bad is not known before all are decoded.
        files = None if self.on_bad_image == "skip" else self.files(split)
        return None if files is None else files * self._preparation(split).views

    @final
    def info(self) -> ImageInfo:
        return ImageInfo(height=self.size, width=self.size, channels=3, class_names=self.classes())

    @final
    def open(self, split: Split) -> ImageReader:
        if split not in self.splits():
            raise DatasetError(f"dataset {self.name!r} has no {split} split: its settings name no place for one")
        source = self.source(split)
        preparation = self._preparation(split)
        workers = usable_workers() if self.workers is None else self.workers
        kept = (
            _kept(self.model_dump_json(exclude={"workers"}), source, preparation, workers) if self.on_bad_image == "skip" else None
        )
        return DecodedReader(source, preparation, workers, kept)

    @final
    def _preparation(self, split: Split) -> Preparation:
        return Preparation(self.size, self.crop if split == "train" else "centre", self.exif)


def _kept(settings: str, source: Source, preparation: Preparation, workers: int) -> NDArray[np.int64]:
    # Files of the same names and sizes elsewhere may be other files.
    key = settings, source.key
    if key not in _KEPT:
        bad = faults(source, preparation, workers)
        if len(bad) == len(source):
            raise DatasetError(f"none of {len(source):,} images can be decoded. The first: {next(iter(bad.values()))}")
        if bad:
            first = "\n".join(list(bad.values())[:NAMED])
            more = f"\n… and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
            warnings.warn(
                f"{len(bad):,} of {len(source):,} images are skipped, as the recipe asks:\n{first}{more}",
                RarkitWarning,
                stacklevel=3,
            )
        _KEPT[key] = np.setdiff1d(np.arange(len(source)), np.fromiter(bad, dtype=np.int64, count=len(bad)))
    return _KEPT[key]
