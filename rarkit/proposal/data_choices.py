"""The ``[dataset]`` table: what is seen of an image, and at which size."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from rarkit.proposal.budget import Budget
from rarkit.proposal.choice import Choice
from rarkit.proposal.survey import Survey
from rarkit.registry.loader import parts

UPSCALED = 1.1
"""By how much images may be enlarged."""
ENOUGH_TOKENS, SHARP_TOKENS = 16, 64
"""Tokens of an image: fewer tell nothing apart, and with so many samples are no collages of patches."""
FEW, MANY = 2_000, 10_000
"""Images: with fewer than the first, they are mirrored, and 64 pixels are enough; 256 pixels need the second."""


@final
class Size(NamedTuple):
    """Pixels of an image's sides, and of the sides of the patch that a token stands for."""

    height: int
    width: int
    patch: int

    @property
    def tokens(self) -> int:
        """Of an image."""
        return self.height // self.patch * (self.width // self.patch)


def sizes(survey: Survey, budget: Budget) -> list[Size]:
    """The sizes that the images allow, from the one that asks least to the one that asks most."""
    if survey.shape is not None:
        return _given(survey.shape[0], survey.shape[1], budget)
    side = int(np.median(survey.sides))
    most = 64 if survey.count < FEW else 128 if survey.count < MANY else 256
    ladder = [Size(32, 32, 8), Size(32, 32, 4), Size(64, 64, 8), Size(128, 128, 8)]
    if budget.is_long and budget.learned and budget.device == "cuda":
        ladder = [*ladder[:3], Size(128, 128, 16), Size(256, 256, 16)]
    allowed = [size for size in ladder if size.height <= min(most, side * UPSCALED)]
    if len(set(survey.sides.tolist())) == 1 and side < 32:
        return _given(side, side, budget)
    return allowed or _given(max(8, side // 4 * 4), max(8, side // 4 * 4), budget)


def _given(height: int, width: int, budget: Budget) -> list[Size]:
    """Images of a size that is given: in the largest patches that leave enough tokens, then in smaller ones of several pixels."""
    every = [patch for patch in range(1, 1 + max(height, width)) if height % patch == 0 and width % patch == 0]
    learned = [patch for patch in every if budget.learned and patch in (2, 4, 8, 16)]
    fitting = [Size(height, width, patch) for patch in learned or every]
    enough = [size for size in fitting if size.tokens >= ENOUGH_TOKENS] or fitting[:1]
    sharp = [size for size in enough if enough[-1].tokens < size.tokens <= SHARP_TOKENS and size.patch > 1]
    return [enough[-1], *sharp[:1]]


def dataset_choices(survey: Survey, size: Size) -> list[Choice]:
    """The whole table."""
    chosen = list(survey.layout.dataset)
    part = parts().datasets[str(survey.layout.setting("name"))]
    if survey.shape is None:
        chosen.append(Choice("size", size.height, _why_size(survey, size)))
    if survey.sound and survey.share("turned") > 0:
        chosen.append(Choice("exif", True, "some cameras were held upright, and say so in EXIF data"))
    if survey.sound and survey.share("transparent") > 0:
        light = np.mean([look.light for look in survey.sound if look.transparent]) > 0.5
        ground = [0, 0, 0] if light else [255, 255, 255]
        name, why = ("black", "what is not transparent is light") if light else ("white", "as most pages and papers are")
        chosen.append(Choice("background", ground, f"transparent pixels become {name}, {why}"))
    if survey.looks and survey.shape is None:
        chosen += _on_bad_image(survey)
    if survey.count < FEW and "flip" in part.model_fields:
        chosen.append(Choice("flip", True, "few images, so each is mirrored too; false if left and right matter, as in writing"))
    return chosen


def views(chosen: list[Choice]) -> int:
    """How many training images are made of each."""
    return 2 if any(choice.key == "flip" and choice.value for choice in chosen) else 1


def _on_bad_image(survey: Survey) -> list[Choice]:
    looked, damaged = len(survey.looks), len(survey.damaged)
    if damaged:
        why = f"{damaged} of the {looked:,} images that were looked at cannot be read"
        return [Choice("on_bad_image", "skip", f"{why}; they are left out, and counted in a warning")]
    if looked < survey.count:
        return [Choice("on_bad_image", "skip", f"{looked:,} images were looked at; others may be damaged, and are left out")]
    return []


def _why_size(survey: Survey, size: Size) -> str:
    side = int(np.median(survey.sides))
    if size.height > side / UPSCALED * 0.999 and size.height >= side // 4 * 4:
        return f"pixels of a side; a typical image has {side} on its shorter one"
    return f"pixels of a side, for {survey.count:,} images and the time; a typical image has {side} on its shorter one"
