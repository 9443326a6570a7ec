"""The base class of datasets of encoded images (JPEG, PNG, …)."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rarkit.datasets.base import Dataset
from rarkit.datasets.decoding import DecodedReader, Source, faults
from rarkit.datasets.notices import NAMED, notify
from rarkit.datasets.preparation import Crop, Preparation
from rarkit.datasets.transparency import WHITE, Background
from rarkit.datasets.workers import usable_workers
from rarkit.errors import DatasetError
from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.registry.bounds import Side, Workers
from rarkit.registry.component import NotInFingerprint, Seed

MOST_CROPS = 100
CROP_SCALE = (0.8, 1.0)
Fraction = Annotated[float, Field(ge=0.05, le=1)]
DECODING = 3
"""Raised whenever images can be decoded that could not be before, or the reverse."""
_KEPT: dict[tuple[str, str, str], NDArray[np.int64]] = {}
"""The decodable files of each source, cached for the process because finding them means decoding every file."""


class EncodedDataset(Dataset, ABC):
    """Images that worker processes decode and crop to squares when they are read."""

    size: Side = 256
    """Height and width of the crops."""
    crop: Crop = "centre"
    """Crops of training images: the centre crop, or the ten crops of ten-crop. Test images always use the centre crop."""
    flip: bool = False
    """Whether each crop of a training image is followed by its mirror image."""
    random_crops: Annotated[int, Field(ge=0, le=MOST_CROPS)] = 0
    """Random crops of each training image, in place of its centre crop; 0 for none. They are drawn once, and are rows of the
    training data as the ten crops are: ``[evaluate]`` compares with them, too."""
    crop_scale: tuple[Fraction, Fraction] = CROP_SCALE
    """The least and the greatest side of random crops, as fractions of an image's short side."""
    crop_seed: Seed = 0
    """Seed of the random crops, which depend on it and on the image's number alone."""
    exif: bool = False
    """Whether to rotate images according to their EXIF orientation. The published pipelines do not."""
    background: Background = WHITE
    """Colour behind transparent pixels: red, green and blue. A warning names the first image that has some."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about images that cannot be decoded, or are too large. To skip and count them, all images are decoded once in
    advance."""
    workers: Annotated[Workers | None, NotInFingerprint()] = None
    """Worker processes that decode images; 0 for none. Defaults to the CPU cores, divided among the ranks on this machine."""

    @model_validator(mode="after")
    def _views_go_together(self) -> Self:
        if self.crop == "ten" and (self.flip or self.random_crops):
            raise ValueError('crop = "ten" has its own mirror images and places: set neither flip nor random_crops')
        if not self.random_crops and (self.crop_scale != CROP_SCALE or self.crop_seed):
            raise ValueError("crop_scale and crop_seed are those of random crops: set random_crops, too")
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale is {self.crop_scale}: the least side comes first")
        return self

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the labels. Must be fast. Raises DatasetError if the data is missing."""

    @abstractmethod
    def source(self, split: Split) -> Source:
        """The labelled files of a split. Raises DatasetError if they are missing."""

    def files(self, split: Split) -> int | None:
        """The number of files of a split; None if it is unknown without reading them. Raises DatasetError if they are missing."""
        return None

    @final
    def identified(self, keys: Mapping[Split, str]) -> Mapping[str, str | int]:
        """What ``content`` returns: the keys of the sources, and what decides which images are skipped."""
        content: dict[str, str | int] = dict(keys.items())
        return content | ({"decoding": DECODING} if self.on_bad_image == "skip" else {})

    @final
    def count(self, split: Split) -> int | None:
        # Bad images are known only once all images are decoded.
        files = None if self.on_bad_image == "skip" else self.files(split)
        return None if files is None else files * self._preparation(split).views

    @final
    def info(self) -> ImageInfo:
        return ImageInfo(height=self.size, width=self.size, channels=3, class_names=self.classes())

    @final
    def open(self, split: Split) -> ImageReader:
        if split not in self.splits():
            raise DatasetError(f"dataset {self.name!r} has no {split} split: its settings give no location for it")
        source = self.source(split)
        preparation = self._preparation(split)
        workers = usable_workers() if self.workers is None else self.workers
        kept = (
            _kept(self.model_dump_json(exclude={"workers"}), source, preparation, workers) if self.on_bad_image == "skip" else None
        )
        return DecodedReader(source, preparation, workers, kept, self._tell_transparent)

    @final
    def _tell_transparent(self, name: str) -> None:
        about = f"transparency in {self.model_dump_json(exclude={'workers'})}"
        what = f"{name} has transparent pixels: these, here and in other images, become the background {self.background}"
        notify(what, about=about)

    @final
    def _preparation(self, split: Split) -> Preparation:
        plain = Preparation(self.size, exif=self.exif, background=self.background)
        if split == "test":
            return plain
        return replace(
            plain,
            crop=self.crop,
            random_crops=self.random_crops,
            crop_scale=self.crop_scale,
            crop_seed=self.crop_seed,
            flip=self.flip,
        )


def _kept(settings: str, source: Source, preparation: Preparation, workers: int) -> NDArray[np.int64]:
    # The settings hold the location, relative to the working folder: files with the same names and sizes elsewhere may differ.
    key = os.getcwd(), settings, source.key
    if key not in _KEPT:
        bad = faults(source, preparation, workers)
        if len(bad) == len(source):
            raise DatasetError(f"none of the {len(source):,} images can be decoded. The first: {next(iter(bad.values()))}")
        if bad:
            first = list(bad.values())[:NAMED]
            more = [f"… and {len(bad) - NAMED:,} more"] if len(bad) > NAMED else []
            notify(f"{len(bad):,} of {len(source):,} images are skipped, because on_bad_image is 'skip':", *first, *more)
        _KEPT[key] = np.setdiff1d(np.arange(len(source)), np.fromiter(bad, dtype=np.int64, count=len(bad)))
    return _KEPT[key]
