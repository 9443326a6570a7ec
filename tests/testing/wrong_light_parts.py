"""Scan orders and schedules that break one promise each."""

from __future__ import annotations

import itertools
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, Field

from rarkit import PermutationSchedule, ScanOrder

COUNTER = itertools.count()


class RasterLike(ScanOrder):
    """Raster."""

    def order(self, height, width):
        return np.arange(height * width)


@final
class Nameless(RasterLike):
    """Its name may be anything."""

    name: str = "nameless"


@final
class Lenient(RasterLike):
    """Takes unknown settings."""

    model_config = ConfigDict(extra="allow")
    name: Literal["lenient"] = "lenient"


@final
class Bare(RasterLike):
    """Has a setting that nobody explains."""

    name: Literal["bare"] = "bare"
    setting: int = Field(default=1)


@final
class Fickle(RasterLike):
    """Another identity each time."""

    name: Literal["fickle"] = "fickle"

    def content(self):
        return next(COUNTER)


@final
class Mumbling(RasterLike):
    """Cannot work on CUDA, for no reason."""

    name: Literal["mumbling"] = "mumbling"

    def capability(self, device, dtype):
        return "" if device == "cuda" else None


@final
class Doubled(ScanOrder):
    """Visits the first cell twice."""

    name: Literal["doubled"] = "doubled"

    def order(self, height, width):
        return np.maximum(np.arange(height * width) - 1, 0)


@final
class Backwards(ScanOrder):
    """Hands out a reversed view."""

    name: Literal["backwards"] = "backwards"

    def order(self, height, width):
        return np.arange(height * width)[::-1]


@final
class Shared(ScanOrder):
    """Hands out its own memory."""

    name: Literal["shared"] = "shared"

    def order(self, height, width):
        return KEPT.setdefault((height, width), np.arange(height * width))


KEPT = {}


@final
class Careless(ScanOrder):
    """Right on grids of even sides alone, which it does not say."""

    name: Literal["careless"] = "careless"

    def order(self, height, width):
        steps = np.arange(height * width)
        return steps if height % 2 == width % 2 == 0 else np.maximum(steps - 1, 0)


@final
class TooMuch(PermutationSchedule):
    """More than always."""

    name: Literal["too_much"] = "too_much"

    def random_ratio(self, step, total):
        return 1.5


@final
class Moody(PermutationSchedule):
    """Another ratio each time."""

    name: Literal["moody"] = "moody"

    def random_ratio(self, step, total):
        return (next(COUNTER) % 7) / 7


@final
class Rising(PermutationSchedule):
    """Rises, where it is said to fall."""

    name: Literal["rising"] = "rising"

    def random_ratio(self, step, total):
        return step / total
