"""``rarkit new`` of a Parquet file: its classes are counted, a part of each is held out, and the recipe plans."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow as pa
from animals import png
from pyarrow import parquet

import rarkit


def test_a_parquet_file_becomes_a_recipe(tmp_path):
    images = [png(16 * number) for number in range(15)]
    parquet.write_table(pa.table({"image": images, "label": ["x"] * 10 + ["y"] * 5}), tmp_path / "data.parquet")
    options = ["-o", str(tmp_path / "mine.toml"), "--minutes", "0.5", "--quiet", "--json"]
    command = [sys.executable, "-m", "rarkit", "new", str(tmp_path / "data.parquet"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["classes"] == {"x": 8, "y": 4}
    assert said["tables"]["dataset"]["test_fraction"] == 0.2
    assert rarkit.plan(rarkit.load_recipe(tmp_path / "mine.toml"), str(tmp_path / "store")).obstacle is None
