"""What is remarked on a run's numbers, and when."""

from __future__ import annotations

import pytest

from rarkit.evaluation.record import MetricRecord
from rarkit.report.remarks import remarks


def bits(held_out, training, low=None):
    high = None if low is None else 2 * held_out - low
    return MetricRecord("bits_per_token", held_out, low, high, "bits", "lower", "…", {"training images": training})


@pytest.mark.parametrize("low", [None, 2.46])
def test_likelihoods_that_part_are_remarked_with_both_numbers(low):
    (remark,) = remarks([MetricRecord("recall", 0.9), bits(2.508, 1.622, low)])
    assert "1.622 bits per token for its training images, but 2.508 for images that it has not seen" in remark
    assert "overfitting" in remark


@pytest.mark.parametrize(
    "metric",
    [
        bits(2.5, 2.5),
        bits(2.5, 2.4),
        bits(2.5, 2.6),
        bits(2.5, 2.2, low=2.1),
        MetricRecord("bits_per_token", 2.5),
        bits(2.5, float("nan")),
    ],
)
def test_likelihoods_that_agree_are_not(metric):
    assert remarks([metric]) == ()
