"""Image arrays in NumPy's ``.npz`` files."""

from __future__ import annotations

import zipfile
from typing import Annotated, Any, Literal, final

from numpy.typing import NDArray

from rarkit.datasets.arrays import ArrayRows, Layout, check_labels, label_numbers, label_values, layout_of, names_in, times
from rarkit.datasets.base import Dataset
from rarkit.datasets.notices import notify
from rarkit.datasets.splits import check_apart
from rarkit.datasets.transparency import WHITE, Background
from rarkit.errors import DatasetError
from rarkit.files.npz import checksums, header, opened, read_array
from rarkit.images import ImageInfo, ImageReader, Split
from rarkit.registry.component import Location, NotInFingerprint

IMAGES = ("images", "arr_0", "x_train", "train_images", "image", "data", "x", "X")
LABELS = ("labels", "arr_1", "y_train", "train_labels", "label", "target", "targets", "y")
TEST_IMAGES, TEST_LABELS = ("x_test", "test_images"), ("y_test", "test_labels")


@final
class Npz(Dataset):
    """Images and labels as arrays in an ``.npz`` file, as written by ``numpy.savez(path, images=…, labels=…)``.

    Images are uint8, N × H × W (grey) or N × H × W × C with C = 1, 3 or 4 (colour with opacity, which is laid on ``background``).
    If the last axis is none of these but the second is, they are N × C × H × W. Arrays of bool are black and white; floats and
    other integers are refused, because their range is not known. Labels, N or N × 1, are whole numbers from 0, or names. A split is
    read into memory as a whole.

    With ``test_images``, the test images are in the same file: Keras' ``mnist.npz`` needs ``test_images = "x_test"`` and nothing
    else. Test images that are the training images, in whichever file, are refused. The fingerprint covers the content of the
    arrays, through the checksums in the file.
    """

    name: Literal["npz"] = "npz"
    path: Annotated[Location, NotInFingerprint()]
    """File of training images; a path or fsspec URL."""
    test_path: Annotated[Location | None, NotInFingerprint()] = None
    """File of test images of the same size. Defaults to no test split, or to ``path`` with ``test_images``."""
    images: str | None = None
    """Name of the array of images. Defaults to a usual one: ``images``, ``arr_0``, ``x_train``, ``train_images``, ``data``, …."""
    labels: str | None = None
    """Name of the array of labels. Defaults to a usual one: ``labels``, ``arr_1``, ``y_train``, ``train_labels``, ``target``, …."""
    test_images: str | None = None
    """Name of the array of test images. Defaults, with ``test_path``, to ``images`` or a usual name."""
    test_labels: str | None = None
    """Name of the array of test labels. Defaults to ``labels`` (with ``test_path``) or a usual name, such as ``y_test``."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of the labels. Defaults to the numbers up to the largest training label, or to the names
    that the training labels are, sorted."""
    background: Background = WHITE
    """Colour behind transparent pixels: red, green and blue. A warning says if there are some."""

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test") if self.test_path or self.test_images or self.test_labels else ("train",)

    def info(self) -> ImageInfo:
        place = self._place("train")
        with opened(place) as archive:
            layout = self._layout(archive, "train")
            names = self.class_names or names_in(self._labels(archive, "train"))
        return ImageInfo(*layout.shape, names)

    def count(self, split: Split) -> int:
        with opened(self._place(split)) as archive:
            return self._layout(archive, split).count

    def content(self) -> Any:
        content: dict[Split, list[list[str | int]]] = {}
        for split in self.splits():
            with opened(self._place(split)) as archive:
                content[split] = checksums(archive, self._keys(archive, split))
        if len(content) > 1:
            # By size and checksum: the same images may be there twice, in one file or in two.
            train, test = ({(size, crc): str(name)} for (name, size, crc), _ in content.values())
            cure = "Set test_path to another file or test_images to another array, or leave out what names test data."
            check_apart(train, test, "images", self._place("test"), cure)
        return content

    def open(self, split: Split) -> ImageReader:
        if split not in self.splits():
            raise DatasetError(f"dataset 'npz' has no {split} split: its settings give no file or arrays for it")
        info, place = self.info(), self._place(split)
        with opened(place) as archive:
            layout = self._layout(archive, split)
            expected = info.height, info.width, info.channels
            if layout.shape != expected:
                raise DatasetError(
                    f"{place}: its {split} images are {times(layout.shape)}, but those of {self.path} are {times(expected)}; "
                    "all must have the same size"
                )
            labels_N = label_numbers(self._labels(archive, split), info.class_names, place)
            images = read_array(archive, self._keys(archive, split)[0], place)
            self._tell(archive, layout, images)
        return ArrayRows(images, labels_N, layout, self.background)

    def _tell(self, archive: zipfile.ZipFile, layout: Layout, images: NDArray[Any]) -> None:
        """Notices about transparent pixels, and about test arrays that are not read."""
        opaque = 1 if images.dtype == bool else 255
        if layout.has_opacity and (layout.stored(images)[..., 3] < opaque).any():
            about = f"transparency in {self.model_dump_json()}"
            notify(f"{self.path} has transparent pixels: these become the background {self.background}", about=about)
        names = _names(archive)
        unread = [name for name in (*TEST_IMAGES, *TEST_LABELS) if name in names]
        if len(self.splits()) == 1 and len(unread) == 2 and not {self.images, self.labels} & {*unread}:
            arrays = " and ".join(unread)
            notify(f'{self.path}: passed over {arrays}; to test on them, set test_images = "{unread[0]}"')

    def _place(self, split: Split) -> str:
        return self.path if split == "train" else self.test_path or self.path

    def _keys(self, archive: zipfile.ZipFile, split: Split) -> tuple[str, str]:
        """The names of the arrays of images and labels."""
        images = self._key(archive, split, "images", self.images, self.test_images, IMAGES, TEST_IMAGES)
        return images, self._key(archive, split, "labels", self.labels, self.test_labels, LABELS, TEST_LABELS)

    def _key(
        self,
        archive: zipfile.ZipFile,
        split: Split,
        what: str,
        training: str | None,
        test: str | None,
        usual: tuple[str, ...],
        usual_test: tuple[str, ...],
    ) -> str:
        names = _names(archive)
        if split == "train":
            candidates = (training,) if training else usual
        elif test or self.test_path is None:
            candidates, what = (test,) if test else usual_test, f"test_{what}"
        else:
            # A file with both training and test arrays is not read as training images again.
            candidates = (training,) if training else (*usual[:2], *usual_test, *usual[2:])
        present = [name for name in candidates if name in names]
        if not present:
            raise DatasetError(
                f"{self._place(split)} has no array {' or '.join(candidates[:2])}; its arrays are: {', '.join(names) or 'none'}. "
                f"Set {what} to the name of the array of {what.replace('_', ' ')}."
            )
        return present[0]

    def _layout(self, archive: zipfile.ZipFile, split: Split) -> Layout:
        place, key = self._place(split), self._keys(archive, split)[0]
        return layout_of(*header(archive, key, place), f"{place}: array {key}")

    def _labels(self, archive: zipfile.ZipFile, split: Split) -> NDArray[Any]:
        """The labels as they are stored, numbers or names."""
        place, (_, key) = self._place(split), self._keys(archive, split)
        check_labels(*header(archive, key, place), self._layout(archive, split).count, f"{place}: array {key}")
        return label_values(read_array(archive, key, place), place)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]
