"""Sets of images as ranges of rows: whoever asks for a range, in whatever order, gets those rows in the same batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.datasets.digits import Digits
from rarkit.errors import DatasetError
from rarkit.stages.measured_images import all_of, some_of, streamed
from rarkit.stages.shared_blocks import check_length

DIGITS = Digits().open("test")
IMAGES = np.arange(23 * 2 * 3, dtype=np.uint8).reshape(23, 2, 3, 1)


@given(
    st.lists(st.tuples(st.integers(0, 22), st.integers(1, 23)), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_a_stream_gives_any_range_in_any_order(ranges, stream_batch, batch):
    opened = []

    def stream():
        opened.append(1)
        return (IMAGES[start : start + stream_batch] for start in range(0, len(IMAGES), stream_batch))

    images = streamed(stream, len(IMAGES), batch)
    for start, length in ranges:
        stop = min(start + length, len(IMAGES))
        batches = [rows for rows, labels in images.batches(start, stop) if labels is None]
        np.testing.assert_array_equal(np.concatenate(batches), IMAGES[start:stop])
        assert [len(rows) for rows in batches[:-1]] == [batch] * (len(batches) - 1)
    ascending = all(before[0] + before[1] <= after[0] for before, after in pairwise(ranges))
    if ascending:
        assert len(opened) == 1, "a stream is read once from front to back"


@given(st.integers(0, 300), st.integers(1, 50), st.integers(1, 20))
def test_rows_of_a_reader_come_with_their_labels(start, length, batch):
    reader, whole = DIGITS, DIGITS.read()
    rows_N = np.arange(0, len(reader), 2)
    for images, rows in ((all_of(reader, batch), np.arange(len(reader))), (some_of(reader, rows_N, batch), rows_N)):
        assert images.count == len(rows)
        stop = min(start % len(rows) + length, len(rows))
        wanted = rows[start % len(rows) : stop]
        batches = list(images.batches(start % len(rows), stop))
        np.testing.assert_array_equal(np.concatenate([pixels for pixels, _ in batches]), whole.images_NHWC[wanted])
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), whole.labels_N[wanted])


def test_data_that_changed_is_refused():
    check_length(DIGITS, "test", len(DIGITS))
    with pytest.raises(DatasetError, match=r"359 images of the split 'test' .* 360 rows.*All ranks need the same data"):
        check_length(DIGITS, "test", 360)
