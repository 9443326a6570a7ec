"""All of tests/data/parity is read by tests: every file, and every entry of every file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from rarkit.models import PRESETS

TESTS = Path(__file__).parent
PARITY = TESTS / "data/parity"
FILES = sorted(path.name for path in PARITY.iterdir() if path.name != "README.md")
READERS: dict[str, set[str]] = {
    **{f"{preset}.manifest.json": {"models/rar/test_rar.py"} for preset in PRESETS},
    "rar_small.safetensors": {"models/rar/small.py"},
    "maskgit_vqgan_small.safetensors": {"tokenizers/test_maskgit_vqgan.py"},
    "maskgit_vqgan_f16.manifest.json": {"tokenizers/test_maskgit_vqgan.py"},
    "schedules.json": {
        "training/test_training.py",
        "permutation_schedules/test_schedules.py",
        "sampling/test_guidance.py",
        "test_recipes.py",
    },
    "crops.npz": {"datasets/test_preparation.py"},
    "scan_orders_16x16.json": {"scan_orders/test_scan_orders.py"},
}


def readers(name):
    """The tests that open a file of the folder, by what their text names."""
    # Manifests of the presets are opened for all presets at once.
    of_preset = name.removesuffix(".manifest.json") in PRESETS
    pattern = r'PARITY / f"\{preset\}\.manifest\.json"' if of_preset else rf'["/]{re.escape(name)}"'
    paths = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    return {str(path.relative_to(TESTS)) for path in paths if re.search(pattern, path.read_text())}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_read(name):
    assert READERS[name] <= readers(name)
    assert f"`{name}`" in (PARITY / "README.md").read_text()


def test_every_reader_has_its_file():
    assert set(FILES) == set(READERS)
    all_presets = '@pytest.mark.parametrize("preset", sorted(PRESETS))\ndef test_presets_have_the_released_tensors('
    assert all_presets in (TESTS / "models/rar/test_rar.py").read_text()


def names_in(name):
    """Entries of a safetensors file, without weights and gradients (which are read as a whole)."""
    with safe_open(PARITY / name, "pt") as file:
        return {key for key in file.keys() if not key.startswith(("weights/", "expect/permuted/grad/"))}  # noqa: SIM118


def test_every_entry_is_known():
    """What tests read by name; an entry that none reads would be a promise that none keeps."""
    forced = {f"expect/{way}/{what}" for way in ("permuted", "raster") for what in ("logits", "targets", "loss", "accuracy")}
    inputs = {f"inputs/{what}" for what in ("tokens", "labels", "label_dropped", "orders")}
    assert names_in("rar_small.safetensors") == forced | inputs | {f"expect/guided/{setting}/probs" for setting in range(3)}
    expected = {"inputs/images", "expect/latents", "expect/codes", "expect/decoded"}
    assert names_in("maskgit_vqgan_small.safetensors") == expected
    with np.load(PARITY / "crops.npz") as crops:
        kinds = ("image", "center_crop_64", "ten_crop_64")
        assert set(crops.files) == {f"{kind}_{number}" for kind in kinds for number in range(4)}
    schedules = json.loads((PARITY / "schedules.json").read_text())
    assert schedules.keys() == {"learning_rate", "random_ratio", "guidance", "weight_decay"}
    assert json.loads((PARITY / "scan_orders_16x16.json").read_text())["orders"].keys() == {
        "row_major",
        "spiral_in",
        "spiral_out",
        "z_curve",
        "subsample",
        "alternate",
    }


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_have_the_sizes_of_the_manifests(preset):
    """Heads leave no trace in shapes."""
    config = json.loads((PARITY / f"{preset}.manifest.json").read_text())["config"]
    assert config.items() <= PRESETS[preset].model_dump().items()
