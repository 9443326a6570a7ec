"""Images in ``.npz`` files: written as NumPy itself writes them, in the memory of a few blocks."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.files.npz import write_npz


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 20), rows=st.integers(1, 7), side=st.integers(1, 5), channels=st.sampled_from([1, 3]))
def test_it_holds_what_numpy_would_write(tmp_path_factory, count, rows, side, channels):
    folder = tmp_path_factory.mktemp("npz")
    images = np.random.default_rng(count).integers(0, 256, (count, side, side + 1, channels), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) * 7
    write_npz((images[start : start + rows] for start in range(0, count, rows)), labels, folder / "a.npz")
    rgb = np.broadcast_to(images, (*images.shape[:3], 3))
    np.savez(folder / "b.npz", arr_0=rgb, arr_1=labels)
    with zipfile.ZipFile(folder / "a.npz") as ours, zipfile.ZipFile(folder / "b.npz") as theirs:
        assert ours.namelist() == theirs.namelist()
        assert ours.testzip() is None
        assert all(ours.read(name) == theirs.read(name) for name in ours.namelist())
    assert [path.name for path in sorted(folder.iterdir())] == ["a.npz", "b.npz"]


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_is_bounded_by_a_few_blocks(tmp_path, channels):
    rows, blocks, side = 16, 40, 64
    block_bytes = rows * side * side * 3
    made = (np.full((rows, side, side, channels), block, dtype=np.uint8) for block in range(blocks))
    tracemalloc.start()
    try:
        write_npz(made, np.zeros(rows * blocks, dtype=np.int32), tmp_path / "samples.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "samples.npz").stat().st_size > blocks * block_bytes
    # The block before, the one that is made, and one in which grey became three channels; all of them would be forty.
    assert peak < 4 * block_bytes
    with np.load(tmp_path / "samples.npz") as arrays:
        assert arrays["arr_0"].shape == (rows * blocks, side, side, 3)
        assert (arrays["arr_0"][:, 0, 0, 2].reshape(blocks, rows) == np.arange(blocks)[:, None]).all()


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "samples.npz"
    path.write_bytes(b"older")

    def blocks():
        yield np.zeros((1, 2, 2, 3), np.uint8)
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="the store is gone"):
        write_npz(blocks(), np.zeros(2, np.int32), path)
    assert path.read_bytes() == b"older"
