"""Tar files of images and labels ("shards") in the format of the WebDataset library."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from itertools import product
from typing import Annotated, Any, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rarkit.datasets.decoding import EncodedImage, Source
from rarkit.datasets.encoded import EncodedDataset
from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, reaching
from rarkit.files.recognition import COMPRESSED, TAR, instead, peeked
from rarkit.images import Split
from rarkit.registry.component import Location, NotInFingerprint

INSTALL = 'the WebDataset library is not installed: pip install "rarkit[webdataset]"'
Sample = dict[str, Any]


@final
class WebDataset(EncodedDataset):
    """Tar shards in the format of the WebDataset library: the files of a sample have the same name up to the first dot.

    Shards are read in the order of ``urls`` and samples in the order of the shard. A shard can only be read from its start:
    sequential reads are fast, random access is slow.

    The fingerprint covers the names and sizes of the shards, but neither their content nor their location. Needs
    ``pip install "rarkit[webdataset]"``.
    """

    name: Literal["webdataset"] = "webdataset"
    urls: Annotated[Location, NotInFingerprint()]
    """Training shards, as a path or fsspec URL with patterns: ``imagenet-train-{000..146}.tar`` is 147 shards, ``{a,b}`` is two."""
    test_urls: Annotated[Location | None, NotInFingerprint()] = None
    """Test shards. Defaults to no test split."""
    image: str = "jpg;jpeg;png;webp"
    """Extensions of images, separated by semicolons; the first that a sample has is used."""
    label: str = "cls"
    """Extension of labels: files with a whole number from 0."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of the labels. Set either this or ``num_classes``."""
    num_classes: Annotated[int | None, Field(ge=1)] = None
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
        return {split: _key(self._shards(split)) for split in self.splits()}

    def source(self, split: Split) -> Source:
        if find_spec("webdataset") is None:
            raise DatasetError(f"dataset 'webdataset': {INSTALL}")
        shards = self._shards(split)
        promised = None if self.sizes is None else _promised(self.sizes)
        for shard in shards:
            if shard not in self._counts:
                self._counts[shard] = _count(shard) if promised is None else _looked_up(promised, shard, str(self.sizes))
        counts = [self._counts[shard] for shard in shards]
        if not sum(counts):
            raise DatasetError(f"{self.urls if split == 'train' else self.test_urls}: these shards contain no samples")
        return _Shards(_key(shards), shards, counts, self.image.lower().split(";"), self.label.lower(), len(self.classes()))

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {}

    def _shards(self, split: Split) -> list[str]:
        return expanded((self.urls if split == "train" else self.test_urls) or "")


def expanded(pattern: str) -> list[str]:
    """Expands ranges (zero-padded as written) and alternatives: ``a-{08..10}{x,y}`` → a-08x, a-08y, a-09x, …."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inner: str) -> list[str]:
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if bounds is None:
        return inner.split(",")
    first, last = bounds.groups()
    if int(first) > int(last):
        raise DatasetError(f"the range {{{inner}}} in the name of the shards is empty: write the smaller number first")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


@final
class _Shards(Source):
    def __init__(self, key: str, shards: list[str], counts: list[int], images: list[str], label: str, classes: int) -> None:
        self.key = key
        self._shards, self._counts = shards, counts
        self._images, self._label, self._classes = images, label, classes
        self._ends = np.cumsum(counts)
        self._resting: _Shard | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        # The open shard is kept for a reader that continues here; a concurrent reader opens its own.
        shard, self._resting = self._resting, None
        for file in files_F:
            number = int(np.searchsorted(self._ends, file, side="right"))
            place = int(file - self._ends[number] + self._counts[number])
            if shard is None or shard.number != number or shard.position > place:
                shard = _Shard(number, self._shards[number], self._counts[number])
            yield self._image(shard.place, shard.sample(place))
            self._resting = shard

    def _image(self, place: str, sample: Sample) -> EncodedImage:
        name = f"{place}: {sample['__key__']}"
        ending = next((ending for ending in self._images if ending in sample), None)
        if ending is None or self._label not in sample:
            has = ", ".join(key for key in sample if not key.startswith("__"))
            missing = f"label ({self._label})" if ending else f"image ({', '.join(self._images)})"
            raise DatasetError(
                f"{name} has no {missing}; it has: {has}. Set image and label to the extensions that these shards use; "
                "if the shard is truncated, fetch it again."
            )
        text = sample[self._label]
        try:
            label = int(text)
        except ValueError as error:
            raise DatasetError(f"{name}.{self._label} should be a whole number, but is {text[:40]!r}") from error
        if not 0 <= label < self._classes:
            raise DatasetError(f"{name} has the label {label}, but the {self._classes} classes are 0 to {self._classes - 1}")
        return EncodedImage(f"{name}.{ending}", label, sample[ending])


@final
class _Shard:
    """A shard that is read sequentially from its start."""

    def __init__(self, number: int, place: str, count: int) -> None:
        self.number, self.place, self.position = number, place, 0
        self._count = count
        self._samples = _samples(place)

    def sample(self, place: int) -> Sample:
        """The sample at a position that has not been passed yet."""
        for sample in self._samples:
            self.position += 1
            if self.position > place:
                if self.position == self._count and next(self._samples, None) is not None:
                    break
                return sample
        more_or_fewer = "more" if self.position == self._count else "fewer"
        raise DatasetError(
            f"{self.place} contains {more_or_fewer} samples than the {self._count:,} counted earlier or stated in sizes. "
            "Fetch the shard again, or correct sizes."
        )


def _samples(place: str) -> Iterator[Sample]:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    filesystem, path = filesystem_of(place)
    with reaching(place), filesystem.open(path, "rb") as stream:
        try:
            yield from group_by_keys(tar_file_expander([{"url": place, "stream": stream}]))
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise _damaged(place, stream, error) from error


def _count(place: str) -> int:
    """Counts the samples by reading only the names in a shard; skips the files that the library skips."""
    from webdataset.tariterators import group_by_keys

    def names(stream: Any) -> Iterator[Sample]:
        with tarfile.open(fileobj=stream) as files:
            for member in files:
                if member.isreg() and not re.match(r"__[^/]*__($|/)", member.name):
                    yield {"fname": member.name, "data": b"", "__url__": place}

    filesystem, path = filesystem_of(place)
    with reaching(place), filesystem.open(path, "rb") as stream:
        try:
            return sum(1 for _ in group_by_keys(names(stream)))
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise _damaged(place, stream, error) from error


def _damaged(place: str, stream: Any, error: Exception) -> DatasetError:
    reason = str(error.args[0]).split(" @ ")[0] if error.args else ""
    cure = instead(peeked(stream), TAR, *COMPRESSED)
    return DatasetError(f"{place} is damaged or not a shard ({type(error).__name__}: {reason}). {cure}")


def _promised(place: str) -> dict[str, int]:
    filesystem, path = filesystem_of(place)
    with reaching(place):
        text = filesystem.cat_file(path)
    try:
        sizes = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{place} is not JSON: {error}") from error
    if not isinstance(sizes, dict) or not all(type(count) is int and count >= 0 for count in sizes.values()):
        raise DatasetError(
            f'{place} should contain the number of samples of each shard, by file name: {{"train-000.tar": 1000, …}}'
        )
    return sizes


def _looked_up(promised: dict[str, int], shard: str, place: str) -> int:
    name = shard.rsplit("/", 1)[-1]
    if name not in promised:
        raise DatasetError(f"{place} has no number of samples for {name}. Add it, or remove sizes to have the samples counted.")
    return promised[name]


def _key(shards: list[str]) -> str:
    filesystem, _ = filesystem_of(shards[0])
    with reaching(shards[0] if len(shards) == 1 else f"one of {shards[0]} … {shards[-1]}"):
        sizes = filesystem.sizes([filesystem_of(shard)[1] for shard in shards])
    return hashlib.sha256(
        json.dumps([[shard.rsplit("/", 1)[-1], size] for shard, size in zip(shards, sizes, strict=True)]).encode()
    ).hexdigest()
