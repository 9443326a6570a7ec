"""A receipt is not sealed: if it says another model, order or tokenizer than the outputs were made with, nothing is drawn."""

from __future__ import annotations

import json
import shutil

import pytest

import rarkit
from rarkit.errors import StoreError


@pytest.fixture
def run_with(small_finished, tmp_path):
    """The folder of a run whose receipt is edited."""

    def edited(table, settings):
        folder = tmp_path / "edited"
        shutil.copytree(small_finished.folder, folder)
        receipt = json.loads((folder / "receipt.json").read_text())
        receipt["recipe"][table] |= settings
        (folder / "receipt.json").write_text(json.dumps(receipt))
        return folder

    return edited


@pytest.mark.parametrize(
    ("table", "settings"),
    [
        ("scan_order", {"name": "spiral", "direction": "inward"}),
        ("tokenizer", {"iterations": 4}),
        ("tokenizer", {"patch": 1}),
        ("model", {"num_heads": 1}),
        ("model", {"conditioning": "prefix"}),
    ],
)
def test_an_edited_receipt_is_refused(run_with, table, settings):
    folder = run_with(table, settings)
    with pytest.raises(StoreError, match=r"receipt.json says another (scan_order|tokenizer|model|config) than the output of stage"):
        rarkit.sample(folder, [0], 1, device="cpu", quiet=True)


def test_what_decides_nothing_may_be_edited(run_with, small_finished):
    folder = run_with("model", {"dropout": 0.1})
    drawn, again = (rarkit.sample(place, [0], 2, device="cpu", quiet=True) for place in (folder, small_finished.folder))
    assert (drawn.images_NHWC == again.images_NHWC).all()


def test_another_order_is_drawn_along_where_it_is_asked_for(small_finished):
    drawn = rarkit.sample(small_finished.folder, [0], 2, scan_order="spiral", device="cpu", quiet=True)
    assert drawn.scan_order["name"] == "spiral"
