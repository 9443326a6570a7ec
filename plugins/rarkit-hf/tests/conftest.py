"""Lets tests, and processes that they start, import the helpers beside them; the files that most of them read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """30 training images in two files of row groups of four, and 6 for validation."""
    # Imported when the path is set.
    from animals import rows
    from pyarrow import parquet

    place = tmp_path_factory.mktemp("animals")
    for name, start, stop in (
        ("train-00000-of-00002", 0, 18),
        ("train-00001-of-00002", 18, 30),
        ("validation-00000-of-00001", 100, 106),
    ):
        numbers = range(start, stop)
        rows(numbers, [number % 3 for number in numbers]).to_parquet(place / f"data/{name}.parquet", batch_size=4)
    assert parquet.ParquetFile(place / "data/train-00000-of-00002.parquet").num_row_groups == 5
    return str(place)
