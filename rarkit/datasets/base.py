"""Datasets: labelled images in a fixed order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, final, get_args

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError, did_you_mean
from rarkit.images import ImageBlock, ImageInfo, ImageReader, Split
from rarkit.registry.component import Component
from rarkit.registry.contract import broken, checked
from rarkit.registry.shown import shown


class Dataset(Component):
    """A source of labelled images. The base class checks what subclasses and their readers return."""

    kind: ClassVar[str] = "datasets"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, info=_checked_info, splits=_checked_splits, open=_checked_open)

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

    def links_out(self) -> Mapping[str, int]:
        """How many links in the folder of its data lead out of it, by the folder to which they lead, as far as it was listed."""
        return {}

    @abstractmethod
    def open(self, split: Split) -> ImageReader:
        """The images of one split.

        Raises:
            DatasetError: the data, or this split, is missing.
        """


@final
class CheckedReader(ImageReader):
    """A dataset's reader, whose blocks are checked against the dataset's ``info``."""

    def __init__(self, part: Dataset, reader: ImageReader) -> None:
        self._part, self._reader, self.views = part, reader, reader.views

    @cached_property
    def _info(self) -> ImageInfo:
        # Once: some datasets open their file for it.
        return self._part.info()

    def __len__(self) -> int:
        return len(self._reader)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        return self._checked(self._reader.blocks(start, stop, rows))

    def chosen(self, rows_N: NDArray[np.int64], rows: int) -> Iterator[ImageBlock]:
        return self._checked(self._reader.chosen(rows_N, rows))

    def _checked(self, blocks: Iterator[ImageBlock]) -> Iterator[ImageBlock]:
        info = self._info
        for block in blocks:
            images_NHWC, labels_N = block.images_NHWC, block.labels_N
            if images_NHWC.shape[1:] != (info.height, info.width, info.channels):
                expected = f"{info.height} × {info.width} × {info.channels}"
                raise broken(self._part, f"reads images of {images_NHWC.shape[1:]}; by its info they are {expected}")
            if labels_N.dtype != np.int64:
                raise broken(self._part, f"reads labels of {labels_N.dtype}; they must be int64")
            wrong = labels_N[(labels_N < 0) | (labels_N >= info.num_classes)]
            if wrong.size:
                classes = f"its {info.num_classes} classes are 0 to {info.num_classes - 1}"
                raise broken(self._part, f"reads an image with the label {wrong[0]}; {classes}")
            yield block


def _checked_info(part: Dataset, info: Callable[[], Any]) -> ImageInfo:
    about = info()
    if not isinstance(about, ImageInfo):
        raise broken(part, f"returns {type(about).__name__} from info; it must return an ImageInfo")
    if about.channels not in (1, 3) or min(about.height, about.width) < 1 or not about.class_names:
        raise broken(
            part,
            f"has images of {about.height} × {about.width} × {about.channels} in {about.num_classes} classes; it must have 1 or 3 "
            "channels, and at least one row, column and class",
        )
    return about


def _checked_splits(part: Dataset, splits: Callable[[], Any]) -> tuple[Split, ...]:
    names: tuple[Split, ...] = splits()
    if "train" not in names or not set(names) <= set(get_args(Split)):
        raise broken(part, f"has the splits {names!r}; they must be ('train',) or ('train', 'test')")
    return names


def _checked_open(part: Dataset, open_split: Callable[[Split], Any], split: Split) -> ImageReader:
    if split not in get_args(Split):
        hint = did_you_mean(str(split), get_args(Split))
        raise UserError(f"there is no split {shown(split)}{hint} Splits are 'train' and 'test'.")
    reader = open_split(split)
    if not isinstance(reader, ImageReader):
        raise broken(part, f"opens {type(reader).__name__}; it must open an ImageReader")
    if not isinstance(reader.views, int) or reader.views < 1 or (reader.views > 1 and len(reader) % reader.views):
        raise broken(part, f"opens a reader of {len(reader)} rows with {reader.views!r} views of each image; that must divide them")
    return CheckedReader(part, reader)
