"""The names of ImageNet's 1,000 classes (ILSVRC 2012), in the order of their synset folders, which is that of the labels."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

COUNT = 1000
IMAGES = {"train": 1_281_167, "test": 50_000}
"""How many images ILSVRC 2012 has; its validation images serve as test images."""


@cache
def class_names() -> tuple[str, ...]:
    """One name for each label, all different; as torchvision (BSD-3-Clause) lists them."""
    text = files("rarkit.datasets").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
