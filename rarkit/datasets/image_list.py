"""Images that are listed in a file with their labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self, final

import numpy as np
from pydantic import Field, model_validator

from rarkit.datasets.decoding import Source
from rarkit.datasets.encoded import EncodedDataset
from rarkit.datasets.file_lists import Columns, ListedFile, are_numbers, read_list
from rarkit.datasets.image_folder import ONLY_CLASS
from rarkit.datasets.links import folded
from rarkit.datasets.listed_files import Files
from rarkit.datasets.notices import notify, some_of
from rarkit.datasets.splits import check_apart, held_apart
from rarkit.errors import DatasetError, did_you_mean
from rarkit.files.locations import folder_of
from rarkit.images import MOST_CLASSES, Split
from rarkit.registry.component import Location, NotInFingerprint, Seed

TEST_SPLITS = ("test", "val", "valid", "validation")
"""Usual values of ``split_column`` for test images; the first that occurs is used."""


@final
class ImageList(EncodedDataset):
    """Images whose file names and labels are listed in a file: CSV with a header, or JSON lines.

    ``path`` ends in ``.csv`` or ``.tsv``, with values between commas, semicolons or tabs, or in ``.jsonl`` or ``.ndjson``, with one
    JSON table on a line; both are UTF-8. Images keep the order of the list. Labels are names, or whole numbers if all of them are:
    then the classes are the numbers from 0 to the largest, or ``class_names``. Each file is listed once.

    Test images are those of ``test_path``, those that ``split_column`` names, or ``test_fraction`` of each class. Two lists may
    share images, of which a warning tells, but not all test images.

    The fingerprint covers the names, sizes and labels of the files in their order, but neither their pixels nor their location.
    Each dataset object reads the list once.
    """

    name: Literal["image_list"] = "image_list"
    path: Annotated[Location, NotInFingerprint()]
    """The list; a path or fsspec URL."""
    test_path: Annotated[Location | None, NotInFingerprint()] = None
    """List of the test images, with the same columns."""
    root: Annotated[Location | None, NotInFingerprint()] = None
    """Folder that holds all files; names in the list are relative to it, or whole paths that lie in it. Defaults to the folder of
    the list."""
    file_column: Annotated[str, Field(min_length=1), NotInFingerprint()] = "file"
    """Column, or key, of the file names."""
    label_column: Annotated[str, NotInFingerprint()] = "label"
    """Column, or key, of the labels; ``""`` for a single class, ``images``."""
    split_column: Annotated[str, NotInFingerprint()] = ""
    """Column, or key, that says to which split an image belongs. Defaults to none."""
    train: Annotated[str, NotInFingerprint()] = "train"
    """Value of ``split_column`` for training images."""
    test: Annotated[str | None, NotInFingerprint()] = None
    """Value of ``split_column`` for test images; ``""`` for no test split, with or without such a column. Defaults to ``test``,
    ``val``, ``valid`` or ``validation``, the first that occurs."""
    test_fraction: Annotated[float, Field(gt=0, lt=1), NotInFingerprint()] = 0.2
    """With neither ``test_path`` nor ``split_column``: fraction of each class held out for testing, at least one image of two or
    more."""
    split_seed: Annotated[Seed, NotInFingerprint()] = 0
    """With neither ``test_path`` nor ``split_column``: seed of the choice of test images."""
    class_names: Annotated[tuple[str, ...] | None, NotInFingerprint()] = None
    """Names of the classes, in the order of the labels if these are numbers. Defaults to the names that training images have,
    sorted, or to the numbers."""

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if self.test_path is not None and (self.split_column or self.test is not None):
            raise ValueError("test_path is a way to name the test images by itself: set neither split_column nor test")
        if self.test and not self.split_column:
            raise ValueError("test is a value of split_column: set that too")
        return self

    def splits(self) -> tuple[Split, ...]:
        return ("train",) if self.test == "" else ("train", "test")

    def classes(self) -> tuple[str, ...]:
        return self._lists.classes

    def files(self, split: Split) -> int:
        return len(self._lists.rows[split])

    def content(self) -> Any:
        keys = self.identified({split: self.source(split).key for split in self.splits()})
        return {**keys, "classes": len(self.classes())}

    def links_out(self) -> dict[str, int]:
        links = Counter[str]()
        for source in self._lists.sources.values():
            links.update(source.links)
        return folded(links)

    def source(self, split: Split) -> Source:
        lists, place = self._lists, self._place(split)
        if split not in lists.sources:
            rows = [(row, lists.label_of[row.label]) for row in lists.rows[split]]
            both = {**lists.sources, split: Files(place, self.root or folder_of(place), rows)}
            self._check_apart(both)
            lists.sources.update(both)
        return lists.sources[split]

    def _check_apart(self, sources: dict[Split, Files]) -> None:
        """One list has each file in one split. Two lists may share files, but not all that are for tests."""
        if len(sources) < 2:
            return
        train, test = sources["train"].by_identity(), sources["test"].by_identity()
        one_list = self.test_path is None
        cure = "List each file once." if one_list else "Set test_path to a list of other images, or leave it out to hold some out."
        check_apart(train, test, "images", self._place("test"), cure, may_share=not one_list)

    def _place(self, split: Split) -> str:
        return (self.test_path if split == "test" else None) or self.path

    @cached_property
    def _known(self) -> dict[str, _Lists]:
        return {}

    @property
    def _lists(self) -> _Lists:
        # By settings, because pydantic's model_copy(update=…) also copies what is cached.
        settings = self.model_dump_json()
        if settings not in self._known:
            self._known[settings] = self._arranged()
        return self._known[settings]

    def _arranged(self) -> _Lists:
        columns = Columns(self.file_column, self.label_column, self.split_column)
        rows: dict[Split, list[ListedFile]] = {"train": read_list(self.path, columns)}
        if self.test_path is not None:
            rows["test"] = read_list(self.test_path, columns)
        elif self.split_column:
            rows = self._named_apart(rows["train"])
        labels = {row.label for row in rows["train"]}
        classes = self._classes(labels)
        names = {name: number for number, name in enumerate(classes)}
        numbered = are_numbers(labels) and not labels <= set(names)
        label_of = {str(number): number for number in range(len(classes))} if numbered else names
        if not self.label_column:
            label_of = {"": 0}
        for split, listed in rows.items():
            self._check_labels(split, listed, label_of, classes)
        if rows.keys() != set(self.splits()):
            rows = self._held_apart(rows["train"], label_of)
        used = {label_of[row.label] for row in rows["train"]}
        unused = [name for number, name in enumerate(classes) if number not in used]
        if unused:
            count = f"{len(unused):,} of {len(classes):,}"
            notify(f"{self.path}: classes without training images: {count} ({some_of(unused)})")
        return _Lists(rows, classes, label_of, {})

    def _classes(self, labels: set[str]) -> tuple[str, ...]:
        """The names of the classes, given the labels of training images."""
        if not self.label_column or self.class_names is not None:
            return self.class_names or (ONLY_CLASS,)
        if not are_numbers(labels):
            return tuple(sorted(labels))
        largest = max(map(int, labels))
        if largest >= MOST_CLASSES:
            raise DatasetError(
                f"{self.path} has the label {largest}, but labels that are numbers are those of classes from 0, and less than "
                f"{MOST_CLASSES:,}. Write names in their place, such as n{largest}."
            )
        return tuple(map(str, range(largest + 1)))

    def _check_labels(self, split: Split, listed: list[ListedFile], label_of: dict[str, int], classes: tuple[str, ...]) -> None:
        for row in listed:
            if row.label not in label_of:
                known = "class_names" if self.class_names is not None else "training images"
                raise DatasetError(
                    f"{self._place(split)}, line {row.line}: {row.label!r} is none of the {len(classes):,} classes of {known}"
                    f"{did_you_mean(row.label, label_of)} Correct the line, or set class_names to the names of all classes."
                )

    def _named_apart(self, listed: list[ListedFile]) -> dict[Split, list[ListedFile]]:
        """The rows by their value of ``split_column``."""
        counts = Counter(row.split for row in listed)
        test = self.test if self.test is not None else next((name for name in TEST_SPLITS if name in counts), "test")
        names: dict[Split, str] = {"train": self.train, "test": test} if test else {"train": self.train}
        for split, name in names.items():
            if name not in counts:
                none = ' For no test split, set test = "".' if split == "test" else ""
                raise DatasetError(
                    f"{self.path}: no {self.split_column} is {name!r}; there are {some_of(list(counts))}. Set {split} to one of "
                    f"them.{none}"
                )
        passed = [f"{count:,} of {name!r}" for name, count in counts.items() if name not in names.values()]
        if passed:
            notify(f"{self.path}: passed over images of other splits: {some_of(passed)}")
        return {split: [row for row in listed if row.split == name] for split, name in names.items()}

    def _held_apart(self, listed: list[ListedFile], label_of: dict[str, int]) -> dict[Split, list[ListedFile]]:
        labels_N = np.array([label_of[row.label] for row in listed], dtype=np.int64)
        rows = held_apart(labels_N, self.test_fraction, self.split_seed, self.path)
        return {split: [listed[row] for row in rows_N] for split, rows_N in rows.items()}


@final
@dataclass(frozen=True)
class _Lists:
    """What the lists of a dataset say."""

    rows: dict[Split, list[ListedFile]]
    classes: tuple[str, ...]
    label_of: dict[str, int]
    sources: dict[Split, Files]
    """Made on demand, because the files are looked for."""
