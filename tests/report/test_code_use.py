"""The chart of code use: shares of all tokens, in order, of the codes that occur."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rarkit.report.code_use import code_use, ranked


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_shares_fall_and_add_up(tokens):
    series = ranked("all", np.bincount(tokens, minlength=10))
    np.testing.assert_allclose(series.y.sum(), 1)
    assert np.all(np.diff(series.y) <= 0)
    assert series.x.tolist() == list(range(1, len(set(tokens)) + 1))


def test_each_split_is_a_line_on_the_page(small_finished):
    output = small_finished.plan["tokenize"].output
    (curve,) = code_use(small_finished.plan["evaluate"].output)
    even, train, test = curve.series
    assert [series.label for series in curve.series] == ["all equally often", "training images", "held-out images"]
    assert even.y.tolist() == [0.2, 0.2]
    for series, split in ((train, "train"), (test, "test")):
        counts = np.bincount(output.read_array(f"{split}_tokens").ravel())
        np.testing.assert_allclose(series.y, np.sort(counts[counts > 0])[::-1] / counts.sum())
    assert "Use of the codes" in (small_finished.folder / "report.html").read_text()
