"""Plugins that end the process, or print."""

from __future__ import annotations

import json

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
ORDER = """
from typing import Literal
from rarkit import ScanOrder, hookimpl
class Good(ScanOrder):
    "Raster, again."
    name: Literal["good"] = "good"
    def order(self, height, width):
        import numpy as np
        {line}
        return np.arange(height * width)
@hookimpl
def rarkit_scan_orders():
    return [Good]
"""


def _beside_a_good_one(place: Place, code: str) -> None:
    place.plugin("bad_plugin", code)
    place.plugin("good_plugin", ORDER.format(line=""))
    place.recipe('[scan_order]\nname = "good"\n')


@hostile(ENTRIES, "plugins list", code=0, words=("bad_plugin", "RecursionError", "good_plugin"))
def a_module_that_calls_itself_without_an_end(place: Place) -> None:
    _beside_a_good_one(place, "def again():\n    return again()\nagain()")


def _is_json(place: Place) -> None:
    json.loads((place.folder / "stdout").read_text())
