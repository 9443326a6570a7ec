"""Tar shards: which names of files in them are images and labels, and which classes there are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from rarkit.datasets.image_listing import SUFFIXES
from rarkit.datasets.notices import some_of
from rarkit.datasets.shard_labels import unambiguous
from rarkit.datasets.shards import Sample, expanded, samples
from rarkit.datasets.webdataset import INSTALL, LARGEST_LABEL
from rarkit.errors import DatasetError
from rarkit.files.locations import within
from rarkit.files.protocols import is_remote
from rarkit.files.stored_json import JsonTable, parsed
from rarkit.images import MOST_CLASSES
from rarkit.proposal.choice import Choice
from rarkit.proposal.layout import Layout

SHARDS = (".tar", ".tar.gz", ".tgz")
IMAGES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
LABELS = ("cls", "label", "class", "txt")
"""Extensions of files with nothing but a label."""
KEYS = ("label", "class", "cls", "category", "target", "class_id", "class_name")
"""Names of labels in JSON files."""
NUMBER = r"[0-9]{1,7}"
"""A label that is one of so many classes."""
MOST_NAMES = 1000
"""Texts that may be classes: more, or more than half as many as images, are captions."""
HELD_OUT = 10
"""Of so many tar files, one is held out for tests."""


def shard_layout(urls: str) -> Layout:
    """The layout of tar shards. Local ones are read through for their labels, of those elsewhere only the first.

    Args:
        urls: as of the dataset ``webdataset``.

    Raises:
        DatasetError: the WebDataset library is not installed, a shard cannot be read, or its samples have no images or no labels.
    """
    if find_spec("webdataset") is None:
        raise DatasetError(f"{urls}: tar files of images are read by the dataset 'webdataset', but {INSTALL}")
    shards = expanded(urls)
    first = next(samples(shards[0], {"json": LARGEST_LABEL}), None)
    extensions = sorted(key for key in first or {} if not key.startswith("__"))
    image = next((extension for extension in IMAGES if extension in extensions), None)
    if first is None or image is None:
        holds = f"the first sample has {some_of(extensions)}" if extensions else "it has no samples"
        raise DatasetError(f"{shards[0]} holds no images: {holds}. Shards have images ending in {', '.join(SUFFIXES[:4])} or so.")
    label, key = _label(first, extensions, shards[0])
    if label is None:
        raise DatasetError(
            f"{shards[0]} holds images without labels: the first sample has {some_of(extensions)}. Add a file .cls with 0 to each "
            "sample; or unpack the shards into a folder, and name that: images without class folders are one class."
        )
    read = shards[:1] if is_remote(shards[0]) else shards
    counts = Counter(_labels(read, label, key))
    chosen = [Choice("name", "webdataset", "tar files of images and labels"), Choice("urls", urls, "the tar files")]
    if image not in ("jpg", "jpeg", "png", "webp"):
        chosen.append(Choice("image", image, "the ending of images in them"))
    if label != "cls":
        chosen.append(Choice("label", label, "the ending of labels in them"))
    if key is not None and key != "label":
        chosen.append(Choice("label_key", key, "the name of labels in them"))
    named, classes = _classes(counts, urls)
    of = "the first tar file" if len(read) < len(shards) else "the tar files"
    chosen.append(Choice("class_names", named, f"the labels in {of}") if named else Choice("num_classes", len(classes), f"in {of}"))
    remarks = [f"Labels were read of the first of {len(shards)} tar files."] if len(read) < len(shards) else []
    return Layout(f"{len(shards)} tar file{'s' if len(shards) > 1 else ''}", tuple(chosen), tuple(remarks), classes)


def found_shards(place: str, names: list[str]) -> Layout:
    """The layout of tar files in a folder; of many, the last are held out for tests."""
    held_out = len(names) // HELD_OUT
    kept = names[: len(names) - held_out]
    layout = shard_layout(within(place, pattern_of(kept)))
    if not held_out:
        return layout
    test = within(place, pattern_of(names[len(kept) :]))
    if alone := _classes_apart(layout, test):
        whole = shard_layout(within(place, pattern_of(names)))
        told = f"No tar files are held out for tests: classes of the last ones ({some_of(alone)}) are in no others."
        return replace(whole, remarks=(*whole.remarks, told))
    return layout.with_choices(Choice("test_urls", test, f"the last of {len(names)} tar files, for tests"))


def _classes_apart(layout: Layout, test: str) -> list[str]:
    """The classes of test shards that no training image has; shards elsewhere are not read for that."""
    if is_remote(test):
        return []
    label = layout.setting("label") or "cls"
    key = None if label != "json" else layout.setting("label_key") or "label"
    labels = {str(int(text)) if re.fullmatch(NUMBER, text) else text for text in _labels(expanded(test), label, key)}
    return sorted(labels - {name for name, count in layout.classes or () if count})


def pattern_of(names: list[str]) -> str:
    """Names as one: ``a-000.tar``, … ``a-146.tar`` are ``a-{000..146}.tar``, others stand in braces with commas between."""
    if len(names) == 1:
        return names[0]
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    split = [(part[1], part[2], part[3]) for part in parts if part is not None]
    listed = "{" + ",".join(names) + "}"
    # Numbers far apart, such as dates, are not counted through.
    if len(split) < len(names) or int(split[-1][1]) - int(split[0][1]) != len(names) - 1:
        return listed
    (before, first, after), last = split[0], split[-1][1]
    counted = [f"{before}{number:0{len(first)}}{after}" for number in range(int(first), int(last) + 1)]
    return f"{before}{{{first}..{last}}}{after}" if counted == names else listed


def _label(sample: Sample, extensions: list[str], shard: str) -> tuple[str | None, str | None]:
    """The extension of labels, and their key in JSON; None where there are none."""
    plain = next((extension for extension in LABELS if extension in extensions), None)
    if plain is not None or "json" not in extensions:
        return plain, None
    values = _table(sample["json"], shard)
    key = next((key for key in KEYS if isinstance(values.get(key), int | str)), None)
    return (None if key is None else "json"), key


def _labels(shards: list[str], label: str, key: str | None) -> Iterator[str]:
    for shard in shards:
        for sample in samples(shard, {label: LARGEST_LABEL}):
            data: Any = sample.get(label)
            if not isinstance(data, bytes):
                continue
            text = data.decode("utf-8", "replace") if key is None else str(_table(data, shard).get(key, ""))
            yield text.strip()


def _table(data: Any, shard: str) -> dict[str, Any]:
    """A JSON file of a sample; one that is too large comes as the reason for that."""
    try:
        return dict(parsed(JsonTable, data).root) if isinstance(data, bytes) else {}
    except ValueError as error:
        raise DatasetError(f"{shard}: a .json file in it is no JSON object ({error}). Write the shard again.") from error


def _classes(counts: Counter[str], urls: str) -> tuple[list[str] | None, tuple[tuple[str, int], ...]]:
    """The names of the classes, None if they are numbers; and how many images each has."""
    if all(re.fullmatch(NUMBER, value) for value in counts):
        if max(map(int, counts), default=0) >= MOST_CLASSES:
            raise DatasetError(f"{urls}: its labels go up to {max(map(int, counts)):,}. Number the classes from 0, without gaps.")
        numbers = Counter({int(value): count for value, count in counts.items()})
        return None, tuple((str(number), numbers[number]) for number in range(max(numbers, default=0) + 1))
    names = unambiguous(sorted(counts))
    if len(names) > min(MOST_NAMES, counts.total() // 2):
        raise DatasetError(
            f"{urls}: its labels are {len(names):,} different texts, such as {names[0][:40]!r}; these seem to be captions, not "
            "classes. Add a file .cls with a number to each sample."
        )
    return names, tuple((name, counts[name]) for name in names)
