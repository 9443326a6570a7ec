"""What was found of somebody's images, in sentences."""

from __future__ import annotations

import numpy as np

from rarkit.datasets.notices import some_of
from rarkit.proposal.survey import Survey

WIDE = 1.5
"""Ratio of sides from which it is said how much of an image the crop leaves."""
FEW_OF_CLASS = 10
SHOWN_CLASSES = 8


def sentences_on(survey: Survey) -> list[str]:
    """What was found, a sentence for each thing that matters."""
    layout, split = survey.layout, survey.images
    held_out = f"{split['train']:,} to train and {split['test']:,} to test" if split["test"] else "no split for tests"
    found = [f"{layout.what[:1].upper()}{layout.what[1:]}: {survey.count:,} images, {held_out}."]
    found += [_classes(survey), *_sizes(survey)]
    looked, sound = len(survey.looks), len(survey.sound)
    if looked < survey.count:
        which = "the first" if survey.rows_N[-1] < looked else "drawn from all"
        found.append(f"Of the pixels, {looked:,} images were looked at, {which}.")
    if survey.damaged:
        names = some_of([look.name for look in survey.damaged])
        found.append(f"{len(survey.damaged)} of {looked:,} cannot be read: {names}.")
    for what, said in (
        ("grey", "grey, and made colour with three equal channels"),
        ("transparent", "transparent in places"),
        ("animated", "animated, or of several pages; the first one is used"),
        ("deep", "of 16 bits a channel; the upper 8 are used"),
        ("turned", "turned by EXIF data"),
    ):
        count = round(survey.share(what) * sound)
        if count and not (what == "grey" and survey.shape is not None):
            found.append(f"{count:,} of {sound:,} {'is' if count == 1 else 'are'} {said}.")
    return [sentence for sentence in (*found, *layout.remarks) if sentence]


def _classes(survey: Survey) -> str:
    names = survey.class_names
    if len(names) == 1:
        return f"One class, {names[0]!r}."
    if survey.classes is None:
        return f"{len(names):,} classes: {some_of(names)}."
    by_size = sorted(survey.classes, key=lambda pair: -pair[1])
    shown = ", ".join(f"{name} {count:,}" for name, count in by_size[:SHOWN_CLASSES])
    more = f" and {len(names) - SHOWN_CLASSES:,} more" if len(names) > SHOWN_CLASSES else ""
    few = [name for name, count in by_size if count < FEW_OF_CLASS]
    small = f" With fewer than {FEW_OF_CLASS} training images, little is learned of {some_of(few)}." if few else ""
    return f"{len(names):,} classes, with these training images: {shown}{more}.{small}"


def _sizes(survey: Survey) -> list[str]:
    if survey.shape is not None:
        height, width, channels = survey.shape
        return [f"All are {height} × {width} pixels, with {channels} channel{'s' if channels > 1 else ''}."]
    sizes = sorted((look.width * look.height, look.width, look.height) for look in survey.sound)
    smallest, middle, largest = (f"{width} × {height}" for _, width, height in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    if smallest == largest:
        return [f"All that were looked at are {middle} pixels."]
    ratio = float(np.median([max(look.width, look.height) / min(look.width, look.height) for look in survey.sound]))
    wide = f" The square crop leaves out {1 - 1 / ratio:.0%} of a typical one." if ratio >= WIDE else ""
    return [f"Sizes: {middle} pixels typically, from {smallest} to {largest}.{wide}"]
