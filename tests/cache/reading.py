"""Ranks that read rows of a store together, for ``tests.processes``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import Store
from rarkit.runtime.progress import Reporter
from rarkit.runtime.together import together


def reading_rows(address: str, count: int, variables: dict[str, str]) -> None:
    """Each rank reads its share of the rows of an array whose row ``i`` is ``2 * i, 2 * i + 1``; the folder of copies is gone."""
    os.environ.update(variables)
    with together() as ranks:
        output = Store(address).output("tokenize", "f00d")
        reader = RowReader(output, "tokens", ranks=ranks, reporter=Reporter(quiet=not ranks.first))
        ranks.meet()
        assert not list(Path(variables["RARKIT_SCRATCH"]).iterdir()), "the copies are gone once all have mapped them"
        own = np.arange(count)[ranks.rank :: ranks.size]
        np.testing.assert_array_equal(reader.rows(own), np.stack([2 * own, 2 * own + 1], axis=1))
        print(f"rank {ranks.rank} of {ranks.size} has read {len(own)} rows", flush=True)
