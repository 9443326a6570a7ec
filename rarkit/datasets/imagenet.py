"""The names of ImageNet's 1,000 classes (ILSVRC 2012), in the order of the synset folders and thus of the labels."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

COUNT = 1000
IMAGES = {"train": 1_281_167, "test": 50_000}
"""Number of images in ILSVRC 2012; its validation images are used as test images."""


@cache
def class_names() -> tuple[str, ...]:
    """One unique name per label, as listed by torchvision (BSD-3-Clause)."""
    text = files("rarkit.datasets").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
