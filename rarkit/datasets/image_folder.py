"""A folder with one subfolder per class, the layout of ImageNet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal, final

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rarkit.datasets.decoding import EncodedImage, Source
from rarkit.datasets.encoded import EncodedDataset
from rarkit.datasets.imagenet import COUNT, IMAGES, class_names
from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, in_this_process_alone, reaching, within
from rarkit.images import Split
from rarkit.registry.component import Location, NotInFingerprint

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@final
class ImageFolder(EncodedDataset):
    """Images in one folder per class: ``path/train/<class>/….jpg``, the layout of ImageNet (ILSVRC 2012).

    The classes are the folders of the training split, sorted, under the folders' names. Images are sorted by class and relative
    path; files without an image suffix are ignored, as are names that start with a dot. With ten-crop, the ten views of a file
    are consecutive rows. ``path`` can be any fsspec URL.

    The fingerprint covers the names and sizes of all files, but neither their pixels nor the location of the folder. Each dataset
    object lists the files once.
    """

    name: Literal["image_folder"] = "image_folder"
    path: Annotated[Location, NotInFingerprint()]
    """Folder with the splits; a path or fsspec URL."""
    train: str = "train"
    """Folder of the training images, relative to ``path``."""
    test: str | None = "val"
    """Folder of the test images, relative to ``path``; ``""`` for no test split."""
    class_list: Annotated[Literal["imagenet"] | None, NotInFingerprint()] = None
    """``"imagenet"`` names the classes of ImageNet's 1,000 synset folders. Defaults to the folders' names."""

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test") if self.test else ("train",)

    def classes(self) -> tuple[str, ...]:
        return class_names() if self.class_list == "imagenet" else tuple(self._class_folders("train"))

    def files(self, split: Split) -> int:
        try:
            return len(self._tree(split))
        except DatasetError:
            if self.class_list == "imagenet":
                return IMAGES[split]
            raise

    def content(self) -> Any:
        return {split: self._tree(split).key for split in self.splits()}

    def source(self, split: Split) -> Source:
        return self._tree(split)

    @cached_property
    def _listed(self) -> dict[tuple[str, str], _Tree]:
        return {}

    def _tree(self, split: Split) -> _Tree:
        # Keyed by location, because pydantic's model_copy(update=…) also copies the cached listings.
        places = self._place(split), self._place("train")
        if places not in self._listed:
            self._listed[places] = self._list(split)
        return self._listed[places]

    def _place(self, split: Split) -> str:
        return within(self.path, self.train if split == "train" else self.test or "")

    def _class_folders(self, split: Split) -> dict[str, str]:
        """Folder paths by class name, sorted."""
        place = self._place(split)
        filesystem, root = filesystem_of(place)
        cure = f"It should contain one folder of images per class: set path, and set {split} to the name of the folder in it."
        if self.class_list == "imagenet":
            cure = f"ImageNet (ILSVRC 2012) is available at image-net.org after registration. {cure}"
        with reaching(place, cure):
            folders = dict(sorted(_folders(filesystem, root)))
        if not folders:
            raise DatasetError(f"{place} contains no folders. {cure}")
        return folders

    def _list(self, split: Split) -> _Tree:
        place = self._place(split)
        filesystem, _ = filesystem_of(place)
        folders = self._class_folders(split)
        labels = {name: label for label, name in enumerate(self._class_folders("train"))}
        if self.class_list == "imagenet" and len(labels) != COUNT:
            raise DatasetError(
                f"{self._place('train')} contains {len(labels)} folders, but ImageNet has {COUNT:,} classes. Complete the data, or "
                "remove class_list."
            )
        unknown = [name for name in folders if name not in labels]
        if unknown:
            raise DatasetError(
                f"{place} has {len(unknown)} classes that {self._place('train')} does not have: {', '.join(unknown[:5])}"
                f"{', …' if len(unknown) > 5 else ''}. The classes are the folders of the training images; rename or move these."
            )
        files, digest = [], hashlib.sha256()
        for name, folder in folders.items():
            with reaching(folder):
                for path, size in sorted(_images(filesystem, folder)):
                    files.append((path, labels[name]))
                    digest.update(f"{name}{path[len(folder) :]}\0{size}\0".encode("utf-8", "surrogateescape"))
        if not files:
            raise DatasetError(
                f"the folders in {place} contain no images. Image files end in {', '.join(SUFFIXES)}, in upper or lower case."
            )
        return _Tree(digest.hexdigest(), filesystem, not in_this_process_alone(place), files)


@final
class _Tree(Source):
    def __init__(self, key: str, filesystem: Any, portable: bool, files: list[tuple[str, int]]) -> None:
        self.key, self.filesystem, self.portable = key, filesystem, portable
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        return (EncodedImage(*self._files[file]) for file in files_F)


def _folders(filesystem: Any, root: str) -> Iterator[tuple[str, str]]:
    if isinstance(filesystem, LocalFileSystem):
        with os.scandir(root) as entries:
            yield from ((entry.name, entry.path) for entry in entries if entry.name[0] != "." and entry.is_dir())
        return
    for entry in filesystem.ls(root, detail=True):
        path = entry["name"].rstrip("/")
        name = path.rsplit("/", 1)[-1]
        # Object stores may list a folder as its own entry.
        if entry["type"] == "directory" and name[0] != "." and path != root.rstrip("/"):
            yield name, path


def _images(filesystem: Any, folder: str) -> Iterator[tuple[str, int]]:
    """Paths and sizes of the images in a folder and its subfolders, in no particular order."""
    if isinstance(filesystem, LocalFileSystem):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if entry.is_dir():
                    yield from _images(filesystem, entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    yield entry.path, entry.stat().st_size
        return
    for path, entry in filesystem.find(folder, detail=True).items():
        hidden = any(step.startswith(".") for step in path[len(folder) :].split("/"))
        if path.lower().endswith(SUFFIXES) and not hidden:
            yield path, entry["size"]
