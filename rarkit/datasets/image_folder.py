"""Folders of images: one subfolder per class, with or without folders for the splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rarkit.datasets.decoding import EncodedImage, Source
from rarkit.datasets.encoded import EncodedDataset
from rarkit.datasets.image_listing import SUFFIXES, ImageFile, Listing, listed
from rarkit.datasets.imagenet import COUNT, IMAGES, class_names
from rarkit.datasets.links import folded
from rarkit.datasets.notices import notify, some_of
from rarkit.datasets.splits import check_apart, held_apart
from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, reaching, within
from rarkit.images import Split
from rarkit.registry.component import Location, NotInFingerprint, Seed

TRAIN, TEST = "train", "val"
"""The folders of the splits unless a recipe names others."""
ONLY_CLASS = "images"
"""The class of images that lie in no class folder."""
LIKE_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Names of folders that nobody means as classes if they lie beside each other; in lower case."""


@final
class ImageFolder(EncodedDataset):
    """Images in one folder per class: ``path/train/<class>/….jpg``, the layout of ImageNet (ILSVRC 2012).

    The classes are the folders of the training split that have an image in them or in their subfolders, sorted, under the folders'
    names; ``label_by`` has other ways. Images without class folders are one class, ``images``. If ``path`` has neither a folder
    ``train`` nor a folder ``val``, it has the class folders itself, and ``test_fraction`` of each class is held out for testing.

    Images are sorted by class and relative path. Folders without images, folders of systems such as ``__MACOSX`` and ``@eaDir``,
    and files without an image suffix are passed over; a warning counts them. Names that start with a dot are passed over without a
    word. Links are followed; a plan says how many lead out of the folder. The views of a file (ten crops, random crops, mirror
    images) are consecutive rows. ``path`` can be any fsspec URL. Images of both splits are told of, also where links lead to them;
    test images that are all training images are refused.

    The fingerprint covers the names and sizes of all files, but neither their pixels nor the location of the folder. Each dataset
    object lists the files once.
    """

    version: ClassVar[int] = 2
    name: Literal["image_folder"] = "image_folder"
    path: Annotated[Location, NotInFingerprint()]
    """Folder with the splits, or with the classes; a path or fsspec URL."""
    train: str = TRAIN
    """Folder of the training images, relative to ``path``; ``""`` if ``path`` has the class folders itself."""
    test: str | None = TEST
    """Folder of the test images, relative to ``path``; ``""`` for no test split."""
    label_by: Literal["folder", "path", "nothing"] = "folder"
    """What makes classes: the folders, with all that lies below them; each path of folders that has images in it, so that
    ``dog/terrier`` and ``dog/poodle`` are two; or nothing: all images are one class, wherever they lie."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Without folders for the splits: fraction of each class held out for testing, at least one image of two or more."""
    split_seed: Seed = 0
    """Without folders for the splits: seed of the choice of test images."""
    class_list: Annotated[Literal["imagenet"] | None, NotInFingerprint()] = None
    """``"imagenet"`` names the classes of ImageNet's 1,000 synset folders. Defaults to the folders' names."""

    @model_validator(mode="after")
    def _test_beside_train(self) -> Self:
        if not self.train and self.test not in (TEST, "", None):
            raise ValueError(
                f'train = "" means that path has the class folders itself, of which test_fraction is held out, but test is '
                f"{self.test!r}: set train to the folder of the training images, or leave test out"
            )
        return self

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test") if self.test else ("train",)

    def classes(self) -> tuple[str, ...]:
        return class_names() if self.class_list == "imagenet" else tuple(self._by_class(self._listing("train")))

    def files(self, split: Split) -> int:
        try:
            return len(self._tree(split))
        except DatasetError:
            if self.class_list == "imagenet":
                return IMAGES[split]
            raise

    def content(self) -> Any:
        return self.identified({split: self._tree(split).key for split in self.splits()})

    def links_out(self) -> dict[str, int]:
        links = Counter[str]()
        for listing in self._known.values():
            links.update(listing.links_out if isinstance(listing, Listing) else {})
        return folded(links)

    def source(self, split: Split) -> Source:
        return self._tree(split)

    @cached_property
    def _known(self) -> dict[Any, Any]:
        """Listings by place and trees by settings, because pydantic's model_copy(update=…) also copies what is cached."""
        return {}

    def _tree(self, split: Split) -> _Tree:
        key = self.path, self.train, self.test, self.test_fraction, self.split_seed, self.class_list, self.label_by
        trees: dict[Split, _Tree] = self._known.setdefault(key, {})
        if split not in trees:
            both = {**trees, split: self._arranged(split)}
            self._check_apart(both)
            trees.update(both)
        return trees[split]

    def _check_apart(self, trees: dict[Split, _Tree]) -> None:
        if len(trees) < 2:
            return
        place, cure = self.path, "Remove links to the same files."
        if self._has_splits():
            place = within(self.path, self.test or "")
            cure = 'Set test to a folder of other images, or test = "" for no test split.'
        check_apart(trees["train"].by_identity(), trees["test"].by_identity(), "images", place, cure)

    def _has_splits(self) -> bool:
        """Whether ``path`` has folders for the splits, and not the classes themselves."""
        if self.train != TRAIN or self.test not in (TEST, "", None):
            return self.train != ""
        key = self.path, "has splits"
        if key not in self._known:
            with reaching(self.path):
                # Once: the files of an archive are listed each time that it is opened.
                filesystem, root = filesystem_of(self.path)
                start = f"{root.rstrip('/')}/" if root else ""
                self._known[key] = any(filesystem.exists(f"{start}{folder}") for folder in (TRAIN, TEST))
        return bool(self._known[key])

    def _listing(self, split: Split) -> Listing:
        """What lies in the folder of a split, or in ``path`` if it has none."""
        has_splits = self._has_splits()
        place = within(self.path, self.train if split == "train" else self.test or "") if has_splits else self.path
        if place not in self._known:
            self._known[place] = self._list(place, split, has_splits)
        listing: Listing = self._known[place]
        return listing

    def _list(self, place: str, split: Split, has_splits: bool) -> Listing:
        cure = f"It should contain one folder of images per class: set path, and set {split} to the name of the folder in it."
        if not has_splits:
            cure = f"Set path to a folder of images, one folder per class, or to one that has such folders in {TRAIN} and {TEST}."
        elif split == "test":
            cure += ' For no test split, set test = "".'
        if self.class_list == "imagenet":
            cure = f"ImageNet (ILSVRC 2012) is available at image-net.org after registration. {cure}"
        listing = listed(place, cure, self.path)
        passed_over = listing.passed_over(loose=self.label_by != "nothing")
        if not self._by_class(listing):
            but = f", but {passed_over}" if passed_over else ""
            neither = "" if has_splits else f", and no folder {TRAIN} or {TEST}"
            raise DatasetError(
                f"{place} contains no images{but}{neither}. Image files end in {', '.join(SUFFIXES)}, in upper or lower case. "
                f"{cure}"
            )
        like_splits = [name for name in listing.by_folder if name.lower() in LIKE_SPLITS]
        if like_splits and not has_splits and self.train:
            raise DatasetError(
                f"{place} has no folders {TRAIN} and {TEST}, but {some_of(like_splits)}. Set train and test to the names of the "
                'folders of the splits, or train = "" if they are classes.'
            )
        if passed_over:
            notify(f"{place}: passed over {passed_over}")
        return listing

    def _arranged(self, split: Split) -> _Tree:
        listing = self._listing(split)
        by_class = self._by_class(listing)
        labels = {name: label for label, name in enumerate(self._by_class(self._listing("train")))}
        self._check_classes(list(by_class), list(labels))
        files = [(image, labels[name]) for name, images in by_class.items() for image in images]
        if self.test and not self._has_splits():
            files = self._held_apart(files, split)
        return _Tree(listing, files)

    def _by_class(self, listing: Listing) -> dict[str, list[ImageFile]]:
        """The images by class; those without class folders are one."""
        inside = [image for images in listing.by_folder.values() for image in images]
        if self.label_by == "nothing" or not inside:
            images = sorted([*listing.loose, *inside], key=lambda image: image.relative)
            return {ONLY_CLASS: images} if images else {}
        if self.label_by == "folder":
            return listing.by_folder
        by_path: dict[str, list[ImageFile]] = {}
        for image in inside:
            by_path.setdefault(image.relative.rpartition("/")[0], []).append(image)
        return dict(sorted(by_path.items()))

    def _check_classes(self, names: list[str], training: list[str]) -> None:
        where = within(self.path, self.train)
        if self.class_list == "imagenet" and len(training) != COUNT:
            raise DatasetError(
                f"{where} contains {len(training)} folders of images, but ImageNet has {COUNT:,} classes. Complete the data, or "
                "remove class_list."
            )
        unknown = [name for name in names if name not in training]
        if unknown == [ONLY_CLASS] == names:
            raise DatasetError(
                f"the images in {within(self.path, self.test or '')} lie in no class folders, but those in {where} do. Sort them "
                'into folders of the same names, or set test = "" for no test split.'
            )
        if unknown:
            raise DatasetError(
                f"{within(self.path, self.test or '')} has {len(unknown)} classes that {where} does not have: {some_of(unknown)}. "
                "The classes are the folders of the training images; rename or move these."
            )

    def _held_apart(self, files: list[tuple[ImageFile, int]], split: Split) -> list[tuple[ImageFile, int]]:
        """The files of one split of a folder without folders for the splits, in their order."""
        labels_N = np.array([label for _, label in files], dtype=np.int64)
        rows = held_apart(labels_N, self.test_fraction, self.split_seed, self.path)
        if self.train:
            notify(
                f"{self.path} has no folders {TRAIN} and {TEST}: of its {len(files):,} images, {len(rows['test']):,} are held out "
                f"for testing (test_fraction = {self.test_fraction:g})"
            )
        return [files[row] for row in rows[split]]


@final
class _Tree(Source):
    def __init__(self, listing: Listing, files: list[tuple[ImageFile, int]]) -> None:
        digest = hashlib.sha256()
        for image, _ in files:
            digest.update(f"{image.relative}\0{image.size}\0".encode("utf-8", "surrogateescape"))
        self.key, self.filesystem, self.portable = digest.hexdigest(), listing.filesystem, listing.portable
        self._files = [(image.path, label) for image, label in files]
        self._identities = [image.identity for image, _ in files]

    def __len__(self) -> int:
        return len(self._files)

    def by_identity(self) -> dict[Hashable, str]:
        """Where the file system finds each file, by what tells it from others."""
        return {identity: path for identity, (path, _) in zip(self._identities, self._files, strict=True)}

    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        return (EncodedImage(*self._files[file]) for file in files_F)
