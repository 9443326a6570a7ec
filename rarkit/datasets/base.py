"""Datasets: labelled images in a fixed order."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.registry.component import Component


class Dataset(Component):
    """Where images come from."""

    kind: ClassVar[str] = "datasets"

    @abstractmethod
    def info(self) -> ImageInfo:
        """Size and classes of the images; quick, since planning asks for it.

        Raises:
            DatasetError: the data is not there; the message says how to get it.
        """

    def splits(self) -> tuple[Split, ...]:
        """Which splits there are; ``"train"`` always."""
        return ("train", "test")

    def count(self, split: Split) -> int | None:
        """How many images ``open(split)`` gives, where that is known without opening them; None where it is not.

        Raises:
            DatasetError: the data is not there.
        """
        return None

    @abstractmethod
    def open(self, split: Split) -> ImageReader:
        """The images of one split.

        Raises:
            DatasetError: the data, or this split of it, is not there.
        """
