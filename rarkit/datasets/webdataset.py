"""Tar files of images and labels ("shards") in the format of the WebDataset library."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, Self, final

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, RootModel, model_validator

from rarkit.datasets.decoding import EncodedImage, Source
from rarkit.datasets.encoded import EncodedDataset
from rarkit.datasets.image_bounds import LARGEST_FILE
from rarkit.datasets.links import LinksOut, folded
from rarkit.datasets.notices import some_of
from rarkit.datasets.shard_labels import LabelReader
from rarkit.datasets.shards import Sample, Shard, count_samples, expanded, scattered_files
from rarkit.datasets.splits import check_apart
from rarkit.errors import DatasetError
from rarkit.files.identities import file_identity
from rarkit.files.locations import filesystem_of, reaching
from rarkit.files.regular import read_on
from rarkit.files.stored_json import parsed
from rarkit.images import Split
from rarkit.registry.bounds import Classes
from rarkit.registry.component import Location, NotInFingerprint

LARGEST_LABEL, LARGEST_SIZES = 2**20, 2**26
"""Bytes of the file of a label, and of ``sizes``."""
MOST_SAMPLES = 2**40
"""Of a shard, as ``sizes`` tells."""
AT_ONCE = 1000
"""Shards whose sizes are asked for at a time."""
Samples = Annotated[int, Field(ge=0, le=MOST_SAMPLES)]
INSTALL = 'the WebDataset library is not installed: pip install "rarkit[webdataset]"'


@final
class WebDataset(EncodedDataset):
    """Tar shards in the format of the WebDataset library: the files of a sample have the same name up to the first dot.

    Shards are read in the order of ``urls`` and samples in the order of the shard; the files of a sample must follow each other. A
    shard can only be read from its start: sequential reads are fast, random access is slow. Names that start with a dot, and the
    folders of systems such as ``__MACOSX``, are passed over. Shards of both splits are told of; test shards that are all training
    shards are refused.

    The fingerprint covers the names and sizes of the shards, but neither their content nor their location. Needs
    ``pip install "rarkit[webdataset]"``.
    """

    version: ClassVar[int] = 2
    name: Literal["webdataset"] = "webdataset"
    urls: Annotated[Location, NotInFingerprint()]
    """Training shards, as a path or fsspec URL with patterns: ``imagenet-train-{000..146}.tar`` is 147 shards, ``{a,b}`` is two.
    ``::`` joins several, as in ``a-{0..9}.tar::b.tar``."""
    test_urls: Annotated[Location | None, NotInFingerprint()] = None
    """Test shards. Defaults to no test split."""
    image: str = "jpg;jpeg;png;webp"
    """Extensions of images, separated by semicolons; the first that a sample has is used."""
    label: str = "cls"
    """Extension of labels: files with a whole number from 0, or with one of ``class_names``; or ``"json"``. A label that is
    the name of one class and the number of another is refused."""
    label_key: str = "label"
    """With ``label = "json"``: the key of the label, a number or name, in each JSON file."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of the labels. Set either this or ``num_classes``. A name that is the number of a class,
    such as ``2``, should be that class's: third in the list."""
    num_classes: Classes | None = None
    """Number of classes, whose names are then their numbers."""
    sizes: Annotated[Location | None, NotInFingerprint()] = None
    """JSON file with the number of samples of each shard, by file name. Defaults to counting them when the shards are opened."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.class_names is None) == (self.num_classes is None):
            raise ValueError("set either class_names or num_classes")
        return self

    def capability(self, device: str, dtype: str) -> str | None:
        return None if find_spec("webdataset") else INSTALL

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test") if self.test_urls else ("train",)

    def classes(self) -> tuple[str, ...]:
        return self.class_names or tuple(str(number) for number in range(self.num_classes or 0))

    def files(self, split: Split) -> int | None:
        if self.sizes is None:
            return None
        promised = _promised(self.sizes)
        return sum(_looked_up(promised, shard, self.sizes) for shard in self._shards(split))

    def content(self) -> Any:
        keys = {split: _key(self._shards(split)) for split in self.splits()}
        if self.test_urls:
            train, test = ({file_identity(shard): shard for shard in self._shards(split)} for split in self.splits())
            check_apart(train, test, "shards", self.test_urls, "Set test_urls to other shards, or leave it out.")
        return self.identified(keys)

    def links_out(self) -> dict[str, int]:
        links = Counter[str]()
        for shard in {shard for split in self.splits() for shard in self._shards(split)}:
            filesystem, path = filesystem_of(shard)
            if isinstance(filesystem, LocalFileSystem) and os.path.islink(path):
                out = LinksOut(os.path.dirname(path))
                out.follow_file(path)
                links.update(out.folders)
        return folded(links)

    def source(self, split: Split) -> Source:
        if find_spec("webdataset") is None:
            raise DatasetError(f"dataset 'webdataset': {INSTALL}")
        shards = self._shards(split)
        promised = None if self.sizes is None else _promised(self.sizes)
        for shard in shards:
            if shard not in self._counts:
                self._counts[shard] = count_samples(shard) if promised is None else _looked_up(promised, shard, str(self.sizes))
        counts = [self._counts[shard] for shard in shards]
        if not sum(counts):
            place = self.urls if split == "train" else self.test_urls
            raise DatasetError(f"{place}: these shards contain no samples. Name others.")
        labels = LabelReader(self.label.lower(), self.label_key, self.classes(), named=self.class_names is not None)
        return _Shards(_key(shards), shards, counts, self.image.lower().split(";"), labels)

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {}

    def _shards(self, split: Split) -> list[str]:
        return expanded((self.urls if split == "train" else self.test_urls) or "")


@final
class _Shards(Source):
    def __init__(self, key: str, shards: list[str], counts: list[int], images: list[str], labels: LabelReader) -> None:
        self.key = key
        self._shards, self._counts = shards, counts
        self._images, self._labels = images, labels
        self._wanted = {**dict.fromkeys(images, LARGEST_FILE), labels.extension: LARGEST_LABEL}
        self._ends = np.cumsum(counts)
        self._resting: Shard | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        # The open shard is kept for a reader that continues here; a concurrent reader opens its own.
        shard, self._resting = self._resting, None
        for file in files_F:
            number = int(np.searchsorted(self._ends, file, side="right"))
            place = int(file - self._ends[number] + self._counts[number])
            if shard is None or shard.number != number or shard.position > place:
                shard = Shard(number, self._shards[number], self._counts[number], self._wanted)
            yield self._image(shard.place, shard.sample(place))
            self._resting = shard

    def _image(self, place: str, sample: Sample) -> EncodedImage:
        name = f"{place}: {sample['__key__']}"
        ending = next((ending for ending in self._images if ending in sample), None)
        if ending is None or self._labels.extension not in sample:
            missing = f"label ({self._labels.extension})" if ending else f"image ({', '.join(self._images)})"
            raise DatasetError(f"{name} has no {missing}{self._cause(place, sample)}")
        image, label = sample[ending], sample[self._labels.extension]
        if isinstance(label, str):
            raise DatasetError(label)
        number = self._labels.label(label, f"{name}.{self._labels.extension}")
        refusal = image if isinstance(image, str) else ""
        return EncodedImage(f"{name}.{ending}", number, None if refusal else image, refusal)

    def _cause(self, place: str, sample: Sample) -> str:
        """The end of a message about a sample that lacks a file: why, and the cure."""
        has = [key for key in sample if not key.startswith("__")]
        scattered = scattered_files(place, sample["__key__"])
        if scattered:
            return (
                f": its files lie apart in the shard ({some_of(scattered)}), but those of a sample must follow each other. Write "
                "the shard again with its files in the order of their names."
            )
        wanted = (*self._images, self._labels.extension)
        dotted = [key for key in has if key.endswith(tuple(f".{ending}" for ending in wanted))]
        if dotted:
            return (
                f": its extension is {dotted[0]!r}, because a sample's name ends at its first dot. Write the shard with names "
                f"without other dots, or set image and label to the extensions, such as {dotted[0]!r}."
            )
        return (
            f"; it has: {some_of(has)}. Set image and label to the extensions that these shards use; if the shard is truncated, "
            "fetch it again."
        )


@final
class _Sizes(RootModel[dict[str, Samples]]):
    """The number of samples of each shard, by file name."""

    model_config = ConfigDict(strict=True)


def _promised(place: str) -> dict[str, int]:
    filesystem, path = filesystem_of(place)
    with reaching(place):
        text = read_on(filesystem, path, LARGEST_SIZES)
    try:
        return parsed(_Sizes, text, LARGEST_SIZES).root
    except ValueError as error:
        raise DatasetError(
            f'{place} should contain the number of samples of each shard, by file name: {{"train-000.tar": 1000, …}} ({error}).'
        ) from error


def _looked_up(promised: dict[str, int], shard: str, place: str) -> int:
    name = shard.rsplit("/", 1)[-1]
    if name not in promised:
        raise DatasetError(f"{place} has no number of samples for {name}. Add it, or remove sizes to have the samples counted.")
    return promised[name]


def _key(shards: list[str]) -> str:
    sizes: dict[str, int] = {}
    # By and by: of a million shards that are missing, the first thousand are enough to say so.
    for start in range(0, len(shards), AT_ONCE):
        paths: dict[Any, dict[str, str]] = {}
        for shard in shards[start : start + AT_ONCE]:
            filesystem, path = filesystem_of(shard)
            paths.setdefault(filesystem, {})[shard] = path
        for filesystem, path_of in paths.items():
            some = list(path_of)
            with reaching(some[0] if len(some) == 1 else f"one of {some[0]} … {some[-1]}"):
                sizes |= zip(some, filesystem.sizes(list(path_of.values())), strict=True)
    return hashlib.sha256(json.dumps([[shard.rsplit("/", 1)[-1], sizes[shard]] for shard in shards]).encode()).hexdigest()
