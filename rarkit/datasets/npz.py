"""Image arrays in NumPy's ``.npz`` files.

Shape letters: N images, H, W, C image height, width, channels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Annotated, Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.base import Dataset
from rarkit.errors import DatasetError
from rarkit.files.npz import checksums, header, opened, read_array
from rarkit.images import ImageBlock, ImageInfo, ImageReader, Split
from rarkit.registry.component import Location, NotInFingerprint

IMAGES, LABELS = ("images", "arr_0"), ("labels", "arr_1")


@final
class Npz(Dataset):
    """Images and labels as arrays in an ``.npz`` file, as written by ``numpy.savez(path, images=…, labels=…)``.

    Images are uint8 (N, H, W, C) with C = 1 or 3; labels (N,) are whole numbers from 0. A split is read into memory as a whole.
    The fingerprint covers the content of both arrays, through the checksums in the file.
    """

    name: Literal["npz"] = "npz"
    path: Annotated[Location, NotInFingerprint()]
    """File of training images; a path or fsspec URL."""
    test_path: Annotated[Location | None, NotInFingerprint()] = None
    """File of test images of the same size. Defaults to no test split."""
    images: str | None = None
    """Name of the array of images. Defaults to ``images``, or ``arr_0`` if there is none."""
    labels: str | None = None
    """Name of the array of labels. Defaults to ``labels``, or ``arr_1`` if there is none."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of the labels. Defaults to the numbers from 0 to the largest training label."""

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test") if self.test_path else ("train",)

    def info(self) -> ImageInfo:
        place = self._place("train")
        with opened(place) as archive:
            _, height, width, channels = self._image_shape(archive, place)
            names = self.class_names or tuple(str(label) for label in range(1 + int(self._labels(archive, place).max())))
        return ImageInfo(height, width, channels, names)

    def count(self, split: Split) -> int:
        place = self._place(split)
        with opened(place) as archive:
            return self._image_shape(archive, place)[0]

    def content(self) -> Any:
        content = {}
        for split in self.splits():
            place = self._place(split)
            with opened(place) as archive:
                content[split] = checksums(archive, self._keys(archive, place))
        return content

    def open(self, split: Split) -> ImageReader:
        if split not in self.splits():
            raise DatasetError(f"dataset 'npz' has no {split} split: its settings give no file for it")
        info, place = self.info(), self._place(split)
        with opened(place) as archive:
            shape = self._image_shape(archive, place)
            if shape[1:] != (info.height, info.width, info.channels):
                raise DatasetError(
                    f"{place}: its images are {_times(shape[1:])}, but those of {self.path} are "
                    f"{_times((info.height, info.width, info.channels))}; all must have the same size"
                )
            labels_N = self._labels(archive, place)
            if labels_N.max() >= info.num_classes:
                raise DatasetError(
                    f"{place} has the label {labels_N.max()}, but the {info.num_classes} classes are 0 to {info.num_classes - 1}. "
                    "Set class_names to the names of all classes, or correct the labels."
                )
            images_NHWC = read_array(archive, self._keys(archive, place)[0], place)
        return _Rows(ImageBlock(images_NHWC, labels_N))

    def _place(self, split: Split) -> str:
        return self.path if split == "train" else self.test_path or ""

    def _keys(self, archive: zipfile.ZipFile, place: str) -> tuple[str, str]:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        keys = []
        for setting, usual in ((self.images, IMAGES), (self.labels, LABELS)):
            candidates = (setting,) if setting else usual
            present = [name for name in candidates if name in names]
            if not present:
                raise DatasetError(
                    f"{place} has no array {' or '.join(candidates)}; its arrays are: {', '.join(names) or 'none'}. "
                    f"Set {usual[0]} to the name of the array of {usual[0]}."
                )
            keys.append(present[0])
        return keys[0], keys[1]

    def _image_shape(self, archive: zipfile.ZipFile, place: str) -> tuple[int, ...]:
        key = self._keys(archive, place)[0]
        shape, dtype = header(archive, key, place)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
            raise DatasetError(
                f"{place}: array {key} is {dtype} {_times(shape)}; images must be uint8, number × height × width × channels, "
                "with 1 or 3 channels"
            )
        return shape

    def _labels(self, archive: zipfile.ZipFile, place: str) -> NDArray[np.int64]:
        images, key = self._keys(archive, place)
        shape, dtype = header(archive, key, place)
        count = header(archive, images, place)[0][0]
        if dtype.kind not in "iu" or shape != (count,):
            raise DatasetError(
                f"{place}: array {key} is {dtype} {_times(shape)}; labels must be whole numbers, one for each of the "
                f"{count:,} images"
            )
        labels_N = read_array(archive, key, place)
        if labels_N.min() < 0 or labels_N.max() > np.iinfo(np.int64).max:
            raise DatasetError(f"{place}: labels range from {labels_N.min()} to {labels_N.max()}; they must start at 0")
        return labels_N.astype(np.int64)


@final
class _Rows(ImageReader):
    def __init__(self, everything: ImageBlock) -> None:
        self._everything = everything

    def __len__(self) -> int:
        return len(self._everything.labels_N)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            chosen = slice(first, min(first + rows, stop))
            yield ImageBlock(self._everything.images_NHWC[chosen], self._everything.labels_N[chosen])


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "without dimensions"
