"""The dataset ``huggingface``. Shape letters: N rows of a table, F those of a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from rarkit import Location, NotInFingerprint
from rarkit.datasets import (
    LARGEST_FILE,
    EncodedDataset,
    EncodedImage,
    Source,
    Split,
    check_apart,
    file_identity,
    held_apart,
    notify,
    some_of,
)
from rarkit.errors import DatasetError
from rarkit_hf.columns import ONLY_CLASS, Columns, Labels, columns_of, labels_in, names_of, renumbered
from rarkit_hf.places import Found, downloaded, found, hub_or_place
from rarkit_hf.tables import Table

TESTS = ("validation", "val", "valid", "test")
"""Usual names of test splits; the first that is there is used. The hub's test splits often lack labels."""
EMBED = (
    "Put the images into the table, with embed_table_storage of datasets.table: "
    'data.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100).with_format(None).to_parquet(FILE).'
)


@final
class HuggingFace(EncodedDataset):
    """Images in Parquet files, as Hugging Face's ``datasets`` library and its hub keep them.

    ``path`` is a Parquet file, several as a pattern (``data/train-*.parquet``), a folder, or the name of a data set on the hub
    (``ylecun/mnist``, as an address ``hf://datasets/ylecun/mnist``). The library sorts the files of folders and of the hub into
    splits. No code of a data set is run. Files of the hub are fetched once, into the library's cache, when images are read;
    planning reads listings and headers. Other files are read where they are, a row group at a time.

    Images are encoded (JPEG, PNG, …) in a column of the library's type ``Image``, or of bytes; those that are only named by a path
    are refused. Labels are of the type ``ClassLabel``, names, or whole numbers; the classes are its names, the names that occur in
    training images, sorted, or the numbers from 0 to the largest. Without labels there is one class, ``images``. Where files number
    the names of a ``ClassLabel`` differently, labels of the same name are the same class. A file for both splits is told of; if no
    file is for tests alone, that is an error.

    The fingerprint covers the names and sizes of the files, and which columns and rows are read, but neither pixels nor the
    location.
    """

    version: ClassVar[int] = 3
    name: Literal["huggingface"] = "huggingface"
    path: Annotated[Location, BeforeValidator(hub_or_place), NotInFingerprint()]
    """Parquet file, pattern or folder, as path or fsspec URL; or a name on the hub, ``owner/name``, unless it is a path that
    exists. A folder is a local one."""
    config: Annotated[str | None, NotInFingerprint()] = None
    """Which of several data sets that lie together, as the hub shows them (*subset*)."""
    revision: Annotated[str | None, NotInFingerprint()] = None
    """Commit, tag or branch on the hub. ``refs/convert/parquet`` has the Parquet files of data sets that are kept in other ways."""
    test_path: Annotated[Location | None, NotInFingerprint()] = None
    """Parquet file or pattern of the test images, where ``path`` is a file or pattern."""
    train: str = "train"
    """Split of the training images."""
    test: str | None = None
    """Split of the test images; ``""`` for none. Defaults to ``validation``, ``val``, ``valid`` or ``test``, the first that is
    there, and to ``test_fraction`` of each class if none is."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Without a test split: fraction of each class held out for testing, at least one image of two or more."""
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Without a test split: seed of the choice of test images."""
    image: str | None = None
    """Column of the images. Defaults to the only one that has images."""
    label: str | None = None
    """Column of the labels; ``""`` for a single class. Defaults to the only one of type ``ClassLabel``, or to ``label``,
    ``labels`` or ``class``."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of the labels. Defaults to those that the data set has."""

    def splits(self) -> tuple[Split, ...]:
        return ("train",) if self.test == "" and self.test_path is None else ("train", "test")

    def classes(self) -> tuple[str, ...]:
        return self._data.classes

    def files(self, split: Split) -> int | None:
        data = self._data
        if data.tables[split].places[0].startswith("hf://"):
            return data.found.counts.get(data.names[split]) if data.names.get("test") else None
        return len(data.rows(split)[0])

    def content(self) -> Any:
        data = self._data
        columns = data.columns.image, data.columns.label
        keys = {}
        if "test" in data.names:
            train, test = ({file_identity(place): place for place in data.tables[split].places} for split in self.splits())
            cure = f"Set {'test' if self.test_path is None else 'test_path'} to other images."
            check_apart(train, test, "files", self.test_path or self.path, cure)
        for split in self.splits():
            held_out = split if data.tables["train"] is data.tables[split] and len(self.splits()) > 1 else ""
            keys[split] = hashlib.sha256(json.dumps([data.tables[split].sizes(), columns, held_out]).encode()).hexdigest()
        return self.identified(keys)

    def source(self, split: Split) -> Source:
        data = self._data
        # Before the labels are read: of the hub's files, that takes a request for each.
        table = data.fetched(split)
        rows_F, labels_F = data.rows(split)
        key = hashlib.sha256(json.dumps(data.tables[split].sizes()).encode() + rows_F.tobytes() + labels_F.tobytes())
        return _Rows(key.hexdigest(), table, data.columns.image, rows_F, labels_F)

    @cached_property
    def _known(self) -> dict[str, _Data]:
        return {}

    @property
    def _data(self) -> _Data:
        # By settings, because pydantic's model_copy(update=…) also copies what is cached.
        settings = self.model_dump_json()
        if settings not in self._known:
            self._known[settings] = _Data(self)
        return self._known[settings]


@final
class _Data:
    """What the files of a dataset say, read as far as it is needed."""

    def __init__(self, part: HuggingFace) -> None:
        self._part = part
        self.found: Found = found(part.path, part.config, part.revision)
        files = dict(self.found.files)
        if part.test_path is not None:
            files["test_path"] = found(part.test_path, None, None).files["train"]
        self.names = self._named(files)
        self._fetched: dict[Split, Table] = {}
        self._read: dict[Split, Labels] = {}
        self.tables: dict[Split, Table] = {"train": Table(files[self.names["train"]])}
        test = self.names.get("test")
        self.tables["test"] = Table(files[test]) if test else self.tables["train"]
        place = self.tables["train"].places[0]
        self.columns: Columns = columns_of(self.tables["train"].schema, place, part.image, part.label)

    def _named(self, files: dict[str, list[str]]) -> dict[Split, str]:
        """The split of the training images, and that of the test images unless they are held out."""
        part = self._part
        if part.test_path is not None:
            if part.test is not None or len(files) > 2:
                raise DatasetError("test_path goes with a path that is a file or a pattern, without test. Remove one of them.")
            return {"train": "train", "test": "test_path"}
        test = next((name for name in TESTS if name in files and name != part.train), None) if part.test is None else part.test
        for key, name in (("train", part.train), ("test", test)):
            if name and name not in files:
                raise DatasetError(f"{part.path} has no split {name!r}; it has: {', '.join(files)}. Set {key} to one of them.")
        unused = [name for name in files if name not in (part.train, test)]
        if unused:
            notify(f"{part.path}: passed over the splits {some_of(unused)}")
        return {"train": part.train, "test": test} if test else {"train": part.train}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        if self._part.class_names or self.columns.names:
            return self._part.class_names or self.columns.names or ()
        if self.columns.label is None:
            return (ONLY_CLASS,)
        labels = self._stored("train")
        if labels.names is not None:
            return tuple(sorted(labels.names[number] for number in np.unique(labels.numbers_N)))
        return tuple(map(str, range(1 + int(labels.numbers_N.max(initial=0)))))

    def fetched(self, split: Split) -> Table:
        """The table of a split on this machine, as far as it is on the hub."""
        if split not in self._fetched:
            self._fetched[split] = Table(downloaded(self.tables[split].places))
        return self._fetched[split]

    def rows(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of a split in its table, ascending, and their labels, each (F,)."""
        labels_N = self._labels(split)
        if "test" in self.names or self._part.test == "":
            return np.arange(len(labels_N)), labels_N
        rows_F = held_apart(labels_N, self._part.test_fraction, self._part.split_seed, self._part.path)[split]
        return rows_F, labels_N[rows_F]

    def _stored(self, split: Split) -> Labels:
        """The labels as they are stored."""
        if split not in self._read:
            table, name = self._fetched.get(split, self.tables[split]), self.columns.label
            if name is None:
                self._read[split] = Labels(np.zeros(len(table), dtype=np.int64), None)
            else:
                self._read[split] = labels_in(table.column(name), self._place(split), name)
                self._renumber(self._read[split].numbers_N, table, name)
        return self._read[split]

    def _renumber(self, numbers_N: NDArray[np.int64], table: Table, name: str) -> None:
        """Gives the labels of each file the numbers that their names have in the training images' first file with names."""
        names, stop = self._names, 0
        for place, schema, rows in table.files():
            start, stop = stop, stop + rows
            own = names_of(schema, name)
            names = names or own
            if own and names and own != names:
                numbers_N[start:stop] = renumbered(numbers_N[start:stop], own, names, place, name)

    @cached_property
    def _names(self) -> tuple[str, ...] | None:
        """The names of the training images' classes, as the first file with labels of the type ``ClassLabel`` has them."""
        name = self.columns.label
        if self.columns.names or name is None:
            return self.columns.names
        table = self._fetched.get("train", self.tables["train"])
        return next((names for _, schema, _ in table.files() if (names := names_of(schema, name))), None)

    def _labels(self, split: Split) -> NDArray[np.int64]:
        """The numbers of the classes (N,)."""
        stored = self._stored(split)
        names = stored.names
        number = {name: label for label, name in enumerate(self.classes)}
        if names is None:
            labels_N = stored.numbers_N
        else:
            labels_N = np.array([number.get(name, len(number)) for name in names], dtype=np.int64)[stored.numbers_N]
        wrong = np.flatnonzero(labels_N >= len(number))
        if len(wrong):
            value = stored.numbers_N[wrong[0]] if names is None else repr(names[stored.numbers_N[wrong[0]]])
            raise DatasetError(
                f"{self._place(split)}: row {wrong[0]} has the {self.columns.label} {value}, which is none of the "
                f"{len(number):,} classes. Set class_names to the names of all classes, or test to another split."
            )
        return labels_N

    def _place(self, split: Split) -> str:
        return f"{self._part.path} ({self.names.get(split, self.names['train'])})"


@final
class _Rows(Source):
    def __init__(self, key: str, table: Table, column: str, rows_F: NDArray[np.int64], labels_F: NDArray[np.int64]) -> None:
        self.key, self._table, self._column, self._rows_F, self._labels_F = key, table, column, rows_F, labels_F

    def __len__(self) -> int:
        return len(self._rows_F)

    def labels(self) -> NDArray[np.int64]:
        return self._labels_F

    def encoded(self, files_F: NDArray[np.int64]) -> Iterator[EncodedImage]:
        images = self._table.images(self._column, self._rows_F[files_F])
        for (place, value), label in zip(images, self._labels_F[files_F].tolist(), strict=True):
            data = value.get("bytes") if isinstance(value, dict) else value
            if isinstance(data, bytes) and len(data) <= LARGEST_FILE:
                yield EncodedImage(place, label, data)
            else:
                yield EncodedImage(place, label, None, f"{place} {_fault(value)}")


def _fault(value: Any) -> str:
    """Why a value is not read as an image."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, bytes):
        return f"has {len(data):,} bytes; an image may have {LARGEST_FILE:,}. Make it smaller, or remove it."
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    if path:
        return f"only names a file ({str(path)[:200]}). {EMBED}"
    return "has no image. Remove it."
