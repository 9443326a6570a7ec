"""A part whose module imports what it does not need yet."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
import PIL.Image

from rarkit import ScanOrder


@final
class Heavy(ScanOrder):
    """Raster, with Pillow at the top of its module."""

    name: Literal["heavy"] = "heavy"

    def order(self, height, width):
        assert PIL.Image
        return np.arange(height * width)
