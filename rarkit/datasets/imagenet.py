"""ImageNet's 1,000 classes (ILSVRC 2012): names and synset ids, in the order of the synset folders and thus of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

COUNT = 1000
IMAGES = {"train": 1_281_167, "test": 50_000}
"""Number of images in ILSVRC 2012; its validation images are used as test images."""


@cache
def class_names() -> tuple[str, ...]:
    """One unique name per label, as listed by torchvision (BSD-3-Clause)."""
    return _lines("imagenet_classes.txt")


@cache
def synsets() -> tuple[str, ...]:
    """The synset id of each label: ``n`` and the eight digits of WordNet 3.0, the names of ImageNet's folders."""
    return _lines("imagenet_synsets.txt")


def other_names(names: Sequence[str]) -> tuple[str, ...]:
    """The synset ids for ImageNet's class names, the class names for its synset ids, and nothing for other classes."""
    # Most data sets are told apart by the number of their classes, without reading a file.
    if len(names) != COUNT:
        return ()
    return {class_names(): synsets(), synsets(): class_names()}.get(tuple(names), ())


def _lines(file: str) -> tuple[str, ...]:
    return tuple(files("rarkit.datasets").joinpath(file).read_text(encoding="utf-8").splitlines())
