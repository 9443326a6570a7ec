"""Scan orders that break the promise which ``fault`` names, most of them on a few grids."""

from __future__ import annotations

import itertools
import os
from functools import cache
from typing import Literal, final

import numpy as np

from rarkit import ScanOrder

COUNTER = itertools.count()
KEPT = {}


@final
class WrongOrder(ScanOrder):
    """Raster, with a fault."""

    name: Literal["wrong_order"] = "wrong_order"
    fault: Literal[
        "none",
        "twice",
        "int32",
        "list",
        "view",
        "short_row",
        "long_row",
        "column",
        "wide",
        "high",
        "32",
        "many_cells",
        "random_on_a_row",
        "random_on_12",
        "shared",
        "counting",
        "memoised",
        "hashed",
        "global",
        "picky",
        "mute",
        "crashing",
    ] = "none"
    """What is wrong."""

    def requirement(self, height, width):
        if self.fault == "picky":
            return "it needs an odd number of rows" if height % 2 == 0 else None
        if self.fault == "crashing":
            # Fails on a grid of 11 rows.
            return "it needs more" if 12 // (height - 11) > 100 else None
        return "" if self.fault == "mute" and height != width else None

    def order(self, height, width):
        fault, cells = self.fault, height * width
        order_L = np.arange(cells)
        wrong = {
            "twice": cells > 1,
            "short_row": height == 1 and 1 < width < 7,
            "long_row": height == 1 and width > 40,
            "column": width == 1 and height > 1,
            "wide": width > height > 6,
            "high": height > width > 6,
            "32": (height, width) == (32, 32),
            "many_cells": cells > 2100 and (height, width) not in ((48, 48), (64, 64)),
        }
        if wrong.get(fault):
            return np.maximum(order_L - 1, 0)
        if fault == "int32":
            return order_L.astype(np.int32)
        if fault == "list":
            return order_L.tolist()
        if fault == "view":
            return order_L[::-1]
        return self._unsteady(height, width, order_L)

    def _unsteady(self, height, width, order_L):
        fault = self.fault
        drawn = {"random_on_a_row": height == 1, "random_on_12": (height, width) == (12, 12)}
        if drawn.get(fault):
            return np.random.default_rng().permutation(order_L)
        if fault == "shared":
            return KEPT.setdefault((height, width), order_L)
        if fault == "counting" and next(COUNTER) >= 500:
            return order_L[::-1].copy()
        if fault == "memoised":
            return memoised(height * width).copy()
        if fault == "hashed":
            return np.array(sorted(order_L.tolist(), key=lambda cell: hash(str(cell))))
        if fault == "global":
            np.random.seed(0)
            return np.random.permutation(order_L)
        return order_L


@cache
def memoised(cells):
    return np.random.default_rng([os.getpid(), cells]).permutation(cells)
