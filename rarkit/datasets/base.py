"""Datasets: labelled images in a fixed order."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.registry.component import Component


class Dataset(Component):
    """A source of labelled images."""

    kind: ClassVar[str] = "datasets"

    @abstractmethod
    def info(self) -> ImageInfo:
        """Size and classes of the images. Must be fast, because planning calls it.

        Raises:
            DatasetError: the data is missing; the message says how to get it.
        """

    def splits(self) -> tuple[Split, ...]:
        """The splits of the dataset; ``"train"`` is always one of them."""
        return ("train", "test")

    def count(self, split: Split) -> int | None:
        """The number of images of ``open(split)``, or None if it is not known without opening the data.

        Raises:
            DatasetError: the data is missing.
        """
        return None

    @abstractmethod
    def open(self, split: Split) -> ImageReader:
        """The images of one split.

        Raises:
            DatasetError: the data, or this split, is missing.
        """
