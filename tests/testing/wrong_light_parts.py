"""Parts of no kind in particular that break one promise of all parts each."""

from __future__ import annotations

import itertools
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, Field

from rarkit import ScanOrder

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
